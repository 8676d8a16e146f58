package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// How long the two halves of a goodbye have to spread, in gossip intervals:
// first the metadata that says so, then memberlist's own message, which would
// take the place of the first one in the queue. One second in all on a LAN.
const (
	leavingIntervals = 2
	leftIntervals    = 3
)

// hastyGoodbyes is how many members are told even when there is no time left: a
// packet to each costs some microseconds, and those who hear tell the others.
const hastyGoodbyes = 64

// Leave says goodbye and closes the node; the others list it as Left at once.
// It takes about five gossip intervals (a second on a LAN, half of one with
// Local, 2.5 s on a WAN), and no time when nobody else is there. When ctx ends
// before that, or Close is called, the goodbye is cut short, the node is closed
// all the same, and Leave returns the cause of ctx; then some may see Failed
// first and Left with the next exchange of states.
//
// Leaving twice is no error, nor is leaving after Close.
func (n *Node) Leave(ctx context.Context) error {
	if !n.stop(nil) {
		select {
		case <-n.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("cluster: leave: %w", context.Cause(ctx))
		}
	}
	err := n.sayFarewell(ctx)
	n.tearDown()
	if err != nil {
		return fmt.Errorf("cluster: leave: %w", err)
	}
	return nil
}

// Close ends the node at once and without a goodbye: the others find out by its
// silence and list it as Failed. It ends whatever waits on this node, and
// returns when the node's goroutines have ended; the consumer given to
// AttachGossip must not call it. Closing twice is no error.
func (n *Node) Close() error {
	if n.stop(nil) {
		n.tearDown()
		return nil
	}
	n.hurried.Do(func() { close(n.hurry) })
	<-n.done
	return nil
}

// surrender stops the node because its name belongs to another one. It says
// goodbye for this instance only, so that nobody waits for its failure.
func (n *Node) surrender(cause error) {
	if !n.stop(cause) {
		return
	}
	n.log.Error("stopping", "err", cause)
	go func() { // Close and Leave wait for it by n.done
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = n.sayFarewell(ctx)
		n.tearDown()
	}()
}

// stop reports whether the caller is the one to end the node.
func (n *Node) stop(cause error) bool {
	n.mu.Lock() // see updateSelf and spawn
	defer n.mu.Unlock()
	if !n.stopping.CompareAndSwap(false, true) {
		return false
	}
	n.cause = cause
	if cause != nil {
		close(n.lost)
	}
	n.cancel(ErrClosed)
	return true
}

// sayFarewell tells everybody in three ways, since each may get lost: a packet
// to each member, gossiped metadata, and the list of the departed that is part
// of each exchange of states.
func (n *Node) sayFarewell(ctx context.Context) error {
	n.mu.Lock()
	_ = n.setSelf(func(md *codec.Metadata) { md.Leaving = true }) // the flag has its place in every metadata
	var others []*record
	for _, r := range n.table.instances {
		if r.alive() && r.key != n.key {
			others = append(others, r)
		}
	}
	n.mu.Unlock()
	if !n.settings.Observer { // nobody lists an observer, so its end is enough
		n.flush()
	}
	if len(others) > 0 {
		goodbye := goodbyeFrame(n.name, n.instance)
		for i, r := range others {
			if i >= hastyGoodbyes && ctx.Err() != nil {
				break
			}
			to := &memberlist.Node{Name: r.key, Addr: net.IP(r.addr.Addr().AsSlice()), Port: r.addr.Port()}
			_ = n.ml.SendBestEffort(to, goodbye)
		}
	}
	if len(others) > 0 && !n.settings.Observer {
		if err := n.linger(ctx, leavingIntervals*n.config.GossipInterval); err != nil {
			return err
		}
	}
	// Leave queues the message and then waits for its last transmission, which
	// cannot be interrupted; the timeout is an error of no interest.
	_ = n.ml.Leave(time.Nanosecond)
	if len(others) > 0 {
		return n.linger(ctx, leftIntervals*n.config.GossipInterval)
	}
	return nil
}

// linger waits for d; Close ends it early without error.
func (n *Node) linger(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-n.hurry:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tearDown ends everything. Only the caller that stop chose may call it.
func (n *Node) tearDown() {
	n.adapter.muted.Store(true)
	_ = n.ml.Shutdown()
	n.mu.Lock()
	n.ended = true
	close(n.news)
	n.news = make(chan struct{})
	for sub := range n.subscribers {
		sub.close()
	}
	clear(n.subscribers)
	n.mu.Unlock()
	n.detach(nil)
	n.wg.Wait()
	close(n.done)
}

// spawn runs f on a goroutine that the node waits for, unless it is stopping.
func (n *Node) spawn(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping.Load() {
		return false
	}
	n.wg.Go(f)
	return true
}
