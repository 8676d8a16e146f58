package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// Hub decides who gets what arrives. Listeners attach to it, of two kinds:
//
//   - printing ones each get every message of their topics, and confirm it once
//     it is printed;
//   - answering ones share the messages of their topics, each message going to
//     one of them, in turn. When there is one, its answer is the message's.
//
// Without an answering listener a request has no listener. Any other message is
// then handled when the first printing listener has confirmed it, and when there
// is none, when print has returned nil.
//
// A message waits while all answering listeners have as much to do as they asked
// for. If one goes away, what it was not yet given goes to another; what it was
// given fails, since it may have acted on it.
type Hub struct {
	print func(context.Context, control.Message) error

	mu        sync.Mutex
	listeners []*listener   // in order of their turn
	changed   chan struct{} // closed and replaced when an answering listener may be free, or is gone
	closed    bool

	hurry     context.Context // ends with Hurry
	hurryDone context.CancelFunc
}

// patience is how long a message of which nobody learns what becomes of it may
// wait for an answering listener and its answer: such a message has no deadline.
const patience = 30 * time.Second

// queueBytes bounds what a printing listener has not confirmed. Beyond it the
// listener misses messages, and is told how many.
const queueBytes = 8 << 20

var (
	errListenerGone = errors.New("the listener that took the message went away before it answered, and may have acted on it")
	errStopping     = errors.New("the node is stopping")
)

// NewHub makes a Hub. print is for what no listener takes.
func NewHub(print func(context.Context, control.Message) error) *Hub {
	h := &Hub{print: print, changed: make(chan struct{})}
	h.hurry, h.hurryDone = context.WithCancel(context.Background())
	return h
}

// Handle takes a message to this node.
func (h *Hub) Handle(ctx context.Context, m unicast.Message) ([]byte, error) {
	return h.deliver(ctx, control.Message{
		Time: time.Now(), Kind: kindName(m.Kind), ID: m.ID.String(), From: m.From, Topic: m.Topic, Body: m.Body,
	})
}

// HandleBroadcast takes a message to everybody.
func (h *Hub) HandleBroadcast(ctx context.Context, m broadcast.Message) error {
	_, err := h.deliver(ctx, control.Message{
		Time: time.Now(), Kind: "broadcast", ID: m.ID.String(), From: m.From, Topic: m.Topic, Body: m.Body,
	})
	return err
}

func kindName(k codec.Kind) string {
	switch k {
	case codec.KindPush:
		return "push"
	case codec.KindRequest:
		return "request"
	}
	return "send"
}

func (h *Hub) deliver(ctx context.Context, m control.Message) ([]byte, error) {
	nobodyWaits := unawaited(ctx, m)
	if nobodyWaits {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
		defer context.AfterFunc(h.hurry, cancel)()
	}
	h.mu.Lock()
	copies, printed := h.offerAll(m)
	for {
		d, busy := h.assign(m)
		if d != nil {
			h.mu.Unlock()
			reply, err, again := h.await(ctx, d)
			if !again {
				return reply, err
			}
			h.mu.Lock()
			continue
		}
		if !busy {
			break
		}
		if h.closed {
			h.mu.Unlock()
			return nil, errStopping
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		h.mu.Lock()
	}
	h.mu.Unlock()

	if m.Kind == "request" {
		return nil, unicast.ErrNoListener
	}
	if copies > 0 && nobodyWaits {
		// It stands in a bounded queue, and nobody is told what becomes of it: a
		// listener that has stopped must not hold up what comes next.
		return nil, nil
	}
	for range copies {
		select {
		case r := <-printed:
			if r.err == nil {
				return nil, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, h.print(ctx, m)
}

// unawaited reports whether nobody learns what becomes of m: a push, or a
// broadcast by gossip, which unlike a reliable one has no deadline.
func unawaited(ctx context.Context, m control.Message) bool {
	_, limited := ctx.Deadline()
	return m.Kind == "push" || m.Kind == "broadcast" && !limited
}

// await waits for the answer to d; again means that nobody has seen it.
func (h *Hub) await(ctx context.Context, d *delivery) (reply []byte, err error, again bool) {
	select {
	case r := <-d.done:
		return r.reply, r.err, r.unseen
	case <-ctx.Done():
		h.mu.Lock()
		d.to.cancel(d)
		h.notify()
		h.mu.Unlock()
		return nil, context.Cause(ctx), false
	}
}

// offerAll gives printing listeners their copies, and returns how many there are
// and where their confirmations come.
func (h *Hub) offerAll(m control.Message) (copies int, confirmed <-chan result) {
	done := make(chan result, len(h.listeners))
	for _, l := range h.listeners {
		if !l.opts.Answer && l.wants(m.Topic) && l.offer(&delivery{to: l, msg: m, done: done}) {
			copies++
		}
	}
	return copies, done
}

// assign gives m to the answering listener whose turn it is. busy means that
// there are some and none is free.
func (h *Hub) assign(m control.Message) (d *delivery, busy bool) {
	for i, l := range h.listeners {
		if !l.opts.Answer || !l.wants(m.Topic) {
			continue
		}
		if l.free == 0 {
			busy = true
			continue
		}
		d := &delivery{to: l, msg: m, done: make(chan result, 1)}
		l.push(d)
		l.settle()
		h.listeners = append(append(h.listeners[:i:i], h.listeners[i+1:]...), l)
		return d, false
	}
	return nil, busy
}

// attach adds a listener, unless the Hub is closed.
func (h *Hub) attach(opts control.ListenOptions) (*listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errStopping
	}
	l := newListener(rand.Text(), opts)
	h.listeners = append(h.listeners, l)
	h.notify()
	return l, nil
}

// detach takes a listener out: what it was told fails, the rest goes to others.
func (h *Hub) detach(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, other := range h.listeners {
		if other == l {
			h.listeners = append(h.listeners[:i:i], h.listeners[i+1:]...)
			break
		}
	}
	l.abandon(errListenerGone)
	h.notify()
}

// Listen attaches a listener until ctx or the loop over it ends, and yields what
// the listener is to be told.
func (h *Hub) Listen(ctx context.Context, agent string, opts control.ListenOptions) iter.Seq2[control.Record, error] {
	l, err := h.attach(opts)
	if err == nil {
		context.AfterFunc(ctx, func() { h.detach(l) })
	}
	return func(yield func(control.Record, error) bool) {
		if err != nil {
			yield(control.Record{}, stopping(err))
			return
		}
		defer h.detach(l)
		if !yield(control.Record{Type: control.RecordAttached, Session: l.session, Agent: agent}, nil) {
			return
		}
		for {
			rec, ok := h.next(l)
			switch {
			case ok && rec.Type == control.RecordEnd:
				yield(rec, nil)
				return
			case ok:
				if !yield(rec, nil) {
					return
				}
			case h.isClosed():
				yield(control.Record{}, stopping(errStopping))
				return
			default:
				select {
				case <-l.wake:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

func stopping(err error) *control.Fault {
	return control.NewFault(control.CodeUnreachable, "", "the agent is stopping; \"parley agent\" starts it again", err)
}

// next returns what a listener is to be told next, if there is something.
func (h *Hub) next(l *listener) (control.Record, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if rec, ok := l.pop(); ok {
		return rec, true
	}
	if l.finished() {
		return control.Record{Type: control.RecordEnd}, true
	}
	return control.Record{}, false
}

func (h *Hub) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// answer takes a listener's answer; false when it has no such message.
func (h *Hub) answer(session string, seq uint64, reply []byte, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.listeners {
		if l.session == session {
			found := l.answer(seq, result{reply: reply, err: err})
			h.notify()
			return found
		}
	}
	return false
}

// size is how many listeners there are.
func (h *Hub) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners)
}

// Hurry ends the handling of messages of which nobody learns what becomes of
// them, so that they do not hold up the end of the agent.
func (h *Hub) Hurry() { h.hurryDone() }

// Close detaches all listeners; what they have not answered fails.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, l := range h.listeners {
		l.abandon(errStopping)
	}
	h.listeners = nil
	h.notify()
}

// notify wakes the messages that wait for an answering listener.
func (h *Hub) notify() {
	close(h.changed)
	h.changed = make(chan struct{})
}
