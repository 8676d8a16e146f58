package unicast

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// own is the way from a Messenger to its own Handler: without the network, and
// otherwise as over it, with bodies that are copies, the same limits, and
// handlers that run in goroutines of their own.
type own struct {
	slots  chan struct{} // a token for each Send and Request being handled
	pushes queue         // in their order, for one worker
	worked chan struct{} // closed when the worker has ended
}

// pushOverhead is what a queued push takes beside its body, in bytes.
const pushOverhead = codec.EnvelopeOverhead

func (o *own) init(cfg *Config) {
	o.slots = make(chan struct{}, cfg.InFlight)
	o.pushes = queue{maxMessages: math.MaxInt, maxBytes: cfg.QueueBytes, overhead: pushOverhead}
	o.worked = make(chan struct{})
}

// exchange is a Send, Request or Ping to this node.
func (o *own) exchange(ctx context.Context, m *Messenger, env codec.Envelope) ([]byte, *Error) {
	leave := func() {}
	if env.Kind != codec.KindPing {
		if failure := o.takeSlot(ctx, m); failure != nil {
			return nil, failure
		}
		leave = func() { <-o.slots }
	}
	env.ID = m.nextID()
	if deadline, ok := ctx.Deadline(); ok {
		env.Timeout = max(time.Until(deadline), time.Millisecond)
	}
	env.Body = copied(env.Body)
	replies := make(chan codec.Reply, 1)
	started := m.crew.start(func() {
		reply := codec.Reply{Status: codec.StatusHandlerPanic, Text: "it ended its goroutine"}
		defer func() {
			leave()
			replies <- reply
		}()
		m.arrived(&env)
		reply.Status, reply.Text, reply.Body = m.admit(m.ctx, &env, nil)
	})
	if !started {
		leave()
		return nil, notDelivered("", ErrClosed)
	}
	select {
	case reply := <-replies:
		body, failure := outcome(&env, &reply)
		return copied(body), failure
	case <-ctx.Done():
		return nil, &Error{Outcome: Unknown, Err: ended(ctx)}
	case <-m.ctx.Done():
		return nil, &Error{Outcome: Unknown, Err: ErrClosed}
	}
}

// takeSlot waits for the right to have one more Send or Request handled.
func (o *own) takeSlot(ctx context.Context, m *Messenger) *Error {
	select {
	case o.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case o.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return notDelivered("", busy("requests in flight", cap(o.slots), ctx))
	case <-m.ctx.Done():
		return notDelivered("", ErrClosed)
	}
}

// push queues a push to this node.
func (o *own) push(ctx context.Context, m *Messenger, env *codec.Envelope) *Error {
	err := o.pushes.put(ctx, Message{ID: m.nextID(), Kind: env.Kind, From: env.From, Topic: env.Topic, Body: copied(env.Body)})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = busy("bytes of pushes queued", m.cfg.QueueBytes, ctx)
	}
	return notDelivered("", err)
}

// work hands the pushes to the handler, one by one, until the queue is closed
// and empty, or the Messenger is closed. The Messenger's crew runs it. The
// handler may end the goroutine that it runs in (runtime.Goexit); then there is
// another for the next push.
func (o *own) work(m *Messenger) {
	defer close(o.worked)
	for finished := false; !finished; {
		var worker sync.WaitGroup
		worker.Go(func() {
			o.handleAll(m)
			finished = true
		})
		worker.Wait()
	}
	if messages, bytes := o.pushes.queued(); messages > 0 {
		m.counters.lostClosed.Add(uint64(messages))
		m.counters.lostBytes.Add(uint64(bytes))
		m.log.Warn("pushes were lost on their way out", slog.String("peer", m.name),
			slog.Int("messages", messages), slog.Int("bytes", bytes), slog.Any("err", ErrClosed))
	}
}

func (o *own) handleAll(m *Messenger) {
	for m.ctx.Err() == nil {
		msg, err := o.pushes.get(m.ctx)
		if err != nil {
			return
		}
		env := codec.Envelope{Kind: msg.Kind, ID: msg.ID, From: msg.From, To: m.name, Topic: msg.Topic, Body: msg.Body}
		m.arrived(&env)
		if s, text, _ := m.handle(m.ctx, &env, nil); s != codec.StatusOK {
			m.notHandled(&env, s, text)
		}
	}
}

// copied is a copy of a body, nil when it is empty, as from the network.
func copied(body []byte) []byte { return append([]byte(nil), body...) }
