package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// MaxReliable is the largest payload of SendReliable in bytes: the largest
// message there can be and its envelope.
const MaxReliable = 16<<20 + codec.EnvelopeOverhead

// reliableTimeout bounds SendReliable for a context without a deadline.
const reliableTimeout = 30 * time.Second

// SendReliable writes payload to node over a TCP connection made for it, where
// it arrives at the consumer that AttachGossip set. nil means that the bytes
// were written: not that they arrived, still less that anybody handled them.
// Sending to this node itself delivers directly.
//
// Errors: *LookupError, *codec.LimitError above MaxReliable, ErrEmpty, ErrClosed,
// the cause of ctx, network errors. After one of the last two the payload may
// have arrived all the same.
func (n *Node) SendReliable(ctx context.Context, node string, payload []byte) (err error) {
	op := "send to " + node
	switch {
	case n.stopping.Load():
		return n.closedError(op)
	case len(payload) == 0:
		return fmt.Errorf("cluster: %s: %w", op, ErrEmpty)
	case len(payload) > MaxReliable:
		return fmt.Errorf("cluster: %s: %w", op, &codec.LimitError{What: "payload", Size: len(payload), Limit: MaxReliable})
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("cluster: %s: %w", op, err)
	}
	n.mu.RLock()
	missing, r := n.lookupError(node), n.find(node)
	n.mu.RUnlock()
	if missing != nil {
		return missing
	}
	if r.key == n.key {
		n.deliver(payload)
		n.stats.reliableSent.Add(1)
		return nil
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, reliableTimeout, fmt.Errorf("no progress within %v", reliableTimeout))
		defer cancel()
	}
	c, end := n.transport.begin(ctx)
	defer end()
	to := &memberlist.Node{Name: c.name, Addr: net.IP(r.addr.Addr().AsSlice()), Port: r.addr.Port()}
	if err := n.ml.SendReliable(to, newFrame(frameDirect, payload)); err != nil {
		n.stats.reliableFailed.Add(1)
		if n.stopping.Load() {
			return n.closedError(op)
		}
		if cause := ended(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("cluster: %s at %v: %w", op, r.addr, err)
	}
	n.stats.reliableSent.Add(1)
	return nil
}
