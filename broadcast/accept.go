package broadcast

import (
	"context"
	"fmt"

	"github.com/parley-mesh/parley/codec"
)

// outcome is what became of a reliable message here. Until the handler begins
// with it, whoever brought it may end it; from then on only the worker does.
type outcome struct {
	begun bool          // with the handler, or ended before that; guarded by Broadcaster.mu
	done  chan struct{} // closed at the end
	err   error         // read after that
}

// accept answers a reliable broadcast that came over the overlay: nil when the
// handler returned nil. The overlay says whom it is from.
func (b *Broadcaster) accept(ctx context.Context, from string, payload []byte) ([]byte, error) {
	if !b.begin() {
		return nil, errClosing
	}
	defer b.running.Done()
	env, err := codec.ParseEnvelope(payload, b.cfg.MaxMessage)
	if err == nil {
		err = b.checkReliable(&env)
	}
	if err == nil && env.From != from {
		err = fmt.Errorf("it says it is from %q", env.From)
	}
	if err != nil {
		b.bad("reliable broadcast", from, err)
		return nil, malformed("reliable broadcast refused: %v", err)
	}

	out, first := b.claim(env.ID)
	if first {
		j := &job{msg: message(env), ctx: ctx, out: out}
		switch b.queue.put(ctx, j) {
		case nil:
		case errQueueClosed:
			b.refuse(j, errClosing)
		default:
			b.count.busy.Add(1)
			b.refuse(j, errBusy)
		}
	}
	select {
	case <-out.done:
	case <-ctx.Done():
		if b.end(out, env.ID, errNotBegun) {
			b.count.expired.Add(1)
		}
		select {
		case <-out.done: // what is known says more than that time is over
		default:
			return nil, context.Cause(ctx)
		}
	}
	return nil, out.err
}

func (b *Broadcaster) checkReliable(env *codec.Envelope) error {
	switch {
	case env.Kind != codec.KindBroadcast:
		return fmt.Errorf("a %v is not a broadcast", env.Kind)
	case len(env.Body) > b.cfg.MaxMessage:
		return &codec.LimitError{What: "body", Size: len(env.Body), Limit: b.cfg.MaxMessage}
	case env.ID.Instance() == b.inst:
		return fmt.Errorf("message %v has this node's own instance", env.ID)
	}
	return checkForAll(env)
}

func message(env codec.Envelope) Message {
	return Message{ID: env.ID, From: env.From, Topic: env.Topic, Body: env.Body, Reliable: true}
}

// claim returns where the outcome of message id is found, and whether the caller
// is the first to bring it and has to see to it. A message reaches the handler at
// most once; those who bring it again get the same answer.
func (b *Broadcaster) claim(id codec.ID) (out *outcome, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if out, ok := b.answered.get(id); ok {
		b.count.reliableDuplicates.Add(1)
		return out, false
	}
	out = &outcome{done: make(chan struct{})}
	b.answered.put(id, out)
	b.count.reliableReceived.Add(1)
	return out, true
}

// begins reports whether the handler is to see j now. From then on nobody ends it
// but the worker.
func (b *Broadcaster) begins(j *job) bool {
	if j.out == nil {
		return true
	}
	if j.ctx != nil && j.ctx.Err() != nil {
		if b.end(j.out, j.msg.ID, errNotBegun) {
			b.count.expired.Add(1)
		}
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ended := j.out.begun
	j.out.begun = true
	return !ended
}

// end ends a message that the handler has not begun with, and reports whether it
// was one. Its id is forgotten: it may be brought again.
func (b *Broadcaster) end(out *outcome, id codec.ID, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if out.begun {
		return false
	}
	out.begun = true // or never, from here on
	b.answered.forget(id)
	out.err = err
	close(out.done)
	return true
}

// refuse ends a message that is not in the queue. When nobody waits for the
// answer, that is a loss.
func (b *Broadcaster) refuse(j *job, err error) {
	if j.out != nil {
		b.end(j.out, j.msg.ID, err)
	}
	if j.ctx == nil {
		b.dropped(j.msg, err)
	}
}

// written takes a reliable broadcast that another node wrote with SendReliable,
// because this one has no mailbox. Its sender does not wait, and its name is a claim.
func (b *Broadcaster) written(env codec.Envelope) {
	if b.handler == nil {
		b.dropped(message(env), errNoHandler)
		return
	}
	out, first := b.claim(env.ID)
	if !first {
		return
	}
	j := &job{msg: message(env), out: out}
	if err := b.queue.offer(j); err != nil {
		b.refuse(j, err)
	}
}
