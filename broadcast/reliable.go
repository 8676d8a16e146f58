package broadcast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// writeTimeout bounds the write to a member without a mailbox when the caller's
// context has no deadline. (The overlay has its own.)
const writeTimeout = 10 * time.Second

// Receipt names every member that was alive at the call, and what became of the
// message there. Handled and Written are sorted.
type Receipt struct {
	ID      codec.ID
	Handled []string         // its handler returned nil
	Written []string         // written to a member that offers no mailbox; not acknowledged
	Failed  map[string]error // and why; nil when empty
}

// Reliable sends body, of any size up to MaxMessage, to every live member but
// this node, and returns when each has answered or failed. At most Fanout sends are
// under way at once.
//
// The recipients are fixed at the call. Members that join during it do not get
// the message; those that leave or fail during it are under Failed with the
// reason, unless they had already handled it; one that restarts during it may get
// it in its new life. With no other member alive the receipt is empty and the
// error nil.
//
// A member is Handled when its handler returned nil. A member without a mailbox
// (it runs no unicast endpoint) gets the message over memberlist's own stream and
// is Written, which says nothing about its arrival. A member that has a mailbox and
// no broadcast handler is Failed.
//
// The error is a *PartialError if any member failed; the receipt is complete
// then too. It matches the members' errors, such as cluster.ErrFailed or
// context.DeadlineExceeded. Other errors mean that nothing was sent: *codec.LimitError
// (body or topic), ErrReservedTopic, ErrNoSender, ErrClosed, or ctx's error when it
// was over already.
//
// When ctx ends or the Broadcaster is closed, Reliable returns at once; members
// that have not answered are under Failed, and those among them to which it was
// sent may still handle it. Without a deadline in ctx each send has ten seconds.
// body must not change during the call.
func (b *Broadcaster) Reliable(ctx context.Context, topic string, body []byte) (Receipt, error) {
	env, payload, err := b.prepare(ctx, topic, body)
	if err != nil {
		b.count.reliableRefused.Add(1)
		return Receipt{}, fmt.Errorf("broadcast: reliable: %w", err)
	}
	defer b.running.Done() // prepare has begun
	b.count.reliableSent.Add(1)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.ctx, func() { cancel(ErrClosed) })()

	hops := plan(b.gossip.Recipients(mailboxService))
	errs := make([]error, len(hops))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(b.cfg.Fanout, len(hops)) {
		workers.Go(func() { // ends when all hops are taken; waited for below
			for i := int(next.Add(1)) - 1; i < len(hops); i = int(next.Add(1)) - 1 {
				errs[i] = b.sendTo(ctx, hops[i], payload)
			}
		})
	}
	workers.Wait()
	return b.receipt(env.ID, hops, errs)
}

// prepare checks the call and encodes the message. Without an error the caller is
// counted among those that Close waits for.
func (b *Broadcaster) prepare(ctx context.Context, topic string, body []byte) (env codec.Envelope, payload []byte, err error) {
	if b.sender == nil {
		return env, nil, ErrNoSender
	}
	if err := checkTopic(topic); err != nil {
		return env, nil, err
	}
	if len(body) > b.cfg.MaxMessage {
		return env, nil, &codec.LimitError{What: "body", Size: len(body), Limit: b.cfg.MaxMessage}
	}
	if ctx.Err() != nil {
		return env, nil, context.Cause(ctx)
	}
	env = codec.Envelope{Kind: codec.KindBroadcast, ID: b.nextID(), From: b.self, Topic: topic, Body: body}
	if payload, err = env.Append(make([]byte, 0, env.Size())); err != nil {
		return env, nil, err
	}
	if !b.begin() {
		return env, nil, ErrClosed
	}
	return env, payload, nil
}

// hop is one send of a broadcast.
type hop struct {
	node    string
	mailbox bool // it can acknowledge
}

// plan lays out the sends: straight to every recipient, in order of their names.
// A tree for large clusters and large bodies would begin here, with hops that
// stand for the members below them.
func plan(recipients map[string]bool) []hop {
	hops := make([]hop, 0, len(recipients))
	for node, mailbox := range recipients {
		hops = append(hops, hop{node, mailbox})
	}
	slices.SortFunc(hops, func(x, y hop) int {
		if x.node < y.node {
			return -1
		}
		return 1
	})
	return hops
}

// sendTo makes one hop. ctx is the caller's, and ends with Close.
func (b *Broadcaster) sendTo(ctx context.Context, h hop, payload []byte) error {
	if ctx.Err() != nil {
		return fmt.Errorf("not sent: %w", context.Cause(ctx))
	}
	var err error
	if h.mailbox {
		err = b.sender.SendReserved(ctx, h.node, reliableTopic, payload)
	} else {
		wctx := ctx
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			wctx, cancel = context.WithTimeout(ctx, writeTimeout)
			defer cancel()
		}
		err = b.gossip.SendReliable(wctx, h.node, payload)
	}
	if err != nil && context.Cause(ctx) == ErrClosed && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrClosed, err) // not the caller's cancellation: ours
	}
	return err
}

// receipt sums up what became of the hops.
func (b *Broadcaster) receipt(id codec.ID, hops []hop, errs []error) (Receipt, error) {
	r := Receipt{ID: id}
	for i, h := range hops {
		switch {
		case errs[i] != nil:
			if r.Failed == nil {
				r.Failed = make(map[string]error)
			}
			r.Failed[h.node] = errs[i]
		case h.mailbox:
			r.Handled = append(r.Handled, h.node)
		default:
			r.Written = append(r.Written, h.node)
		}
	}
	b.count.membersHandled.Add(uint64(len(r.Handled)))
	b.count.membersWritten.Add(uint64(len(r.Written)))
	b.count.membersFailed.Add(uint64(len(r.Failed)))
	if len(r.Failed) > 0 {
		return r, &PartialError{ID: id, Handled: len(r.Handled), Written: len(r.Written), Failed: r.Failed}
	}
	return r, nil
}
