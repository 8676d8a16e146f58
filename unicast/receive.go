package unicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// onRequest takes what arrives at the REP endpoint and returns the reply, or nil
// for none. sp calls it concurrently.
func (m *Messenger) onRequest(ctx context.Context, in sp.Inbound) []byte {
	var env codec.Envelope
	err := m.read(&env, &in)
	if err == nil && env.Kind != codec.KindSend && env.Kind != codec.KindRequest && env.Kind != codec.KindPing {
		err = fmt.Errorf("no %v is taken at this endpoint", env.Kind)
	}
	if err != nil {
		if m.countUnread(in.Remote, err) {
			return nil
		}
		id, _ := codec.EnvelopeID(in.Body)
		return encode(&in, &codec.Reply{ID: id, Status: codec.StatusMalformed, Text: err.Error()})
	}
	s, text, body := m.receive(ctx, &env, &in)
	if s == noReply {
		return nil
	}
	return encode(&in, &codec.Reply{ID: env.ID, Status: s, Text: text, Body: body})
}

// onPush takes what arrives at the PULL endpoint. sp calls it one by one for
// each connection.
func (m *Messenger) onPush(ctx context.Context, in sp.Inbound) {
	var env codec.Envelope
	err := m.read(&env, &in)
	if err == nil && env.Kind != codec.KindPush {
		err = fmt.Errorf("no %v is taken at this endpoint", env.Kind)
	}
	if err != nil {
		m.countUnread(in.Remote, err)
		return
	}
	if s, text, _ := m.receive(ctx, &env, &in); s != codec.StatusOK && s != noReply {
		m.notHandled(&env, s, text)
	}
}

// notHandled logs what became of a push, of which nobody else is told.
func (m *Messenger) notHandled(env *codec.Envelope, s codec.Status, text string) {
	m.quiet.line(slog.LevelWarn, "push was not handled", slog.String("peer", env.From),
		slog.String("topic", env.Topic), slog.String("status", s.String()), slog.String("err", text))
}

// read decodes an envelope. One byte over what a sender of the same
// configuration can send is too much.
func (m *Messenger) read(env *codec.Envelope, in *sp.Inbound) error {
	err := m.parser.Envelope(env, in.Body, m.cfg.maxReserved())
	if err == nil && len(env.Body) > m.cfg.MaxMessage && !reservedTopic(env.Topic) {
		err = &codec.LimitError{What: "body", Size: len(env.Body), Limit: m.cfg.MaxMessage}
	}
	return err
}

// countUnread counts what read refused, and reports whether it was not ours at
// all, so that there is no point in answering.
func (m *Messenger) countUnread(from net.Addr, err error) (foreign bool) {
	if errors.Is(err, codec.ErrNotEnvelope) {
		m.counters.foreign.Add(1)
		m.quiet.line(slog.LevelWarn, "foreign message refused", slog.String("from", fmt.Sprint(from)), slog.Any("err", err))
		return true
	}
	m.counters.notUnderstood.Add(1)
	m.quiet.line(slog.LevelWarn, "message refused", slog.String("from", fmt.Sprint(from)), slog.Any("err", err))
	return false
}

// noReply is the status of a message that is not to be answered.
const noReply codec.Status = 255

// receive decides about a message from the network, has it handled, and returns
// what is to be answered.
func (m *Messenger) receive(ctx context.Context, env *codec.Envelope, in *sp.Inbound) (s codec.Status, text string, body []byte) {
	m.arrived(env)
	if env.To != m.name || env.ToInstance != 0 && env.ToInstance != m.instance {
		m.quiet.line(slog.LevelWarn, "message for another node refused", slog.String("peer", env.From),
			slog.String("to", env.To), slog.Uint64("to_instance", env.ToInstance))
		text := "it is " + m.name
		if env.To == m.name {
			text = "it was started anew"
		}
		return m.became(env, codec.StatusWrongNode), text, nil
	}
	if env.Kind != codec.KindPing && !m.seen.first(env.ID) {
		// No reply would be true: its first copy may be being handled.
		m.counters.kinds[env.Kind].duplicates.Add(1)
		m.quiet.line(slog.LevelWarn, "message seen before refused", slog.String("peer", env.From),
			slog.String("id", env.ID.String()))
		return noReply, "", nil
	}
	return m.admit(ctx, env, in)
}

// admit has a message handled, unless the Messenger is closing. A push is handled
// even then, since its sender could not be told: the end of the endpoint ends them.
// in is what it came in; nil: its body is its own already.
func (m *Messenger) admit(ctx context.Context, env *codec.Envelope, in *sp.Inbound) (s codec.Status, text string, body []byte) {
	if env.Kind == codec.KindPush {
		return m.handle(ctx, env, in)
	}
	if !m.handlers.enter() {
		return m.became(env, codec.StatusClosing), "", nil
	}
	defer m.handlers.leave()
	if env.Kind == codec.KindPing {
		return m.became(env, codec.StatusOK), "", nil
	}
	return m.handle(ctx, env, in)
}

func (m *Messenger) arrived(env *codec.Envelope) {
	c := &m.counters.kinds[env.Kind]
	c.received.Add(1)
	c.bytesReceived.Add(uint64(len(env.Body)))
}

// became counts what became of a message.
func (m *Messenger) became(env *codec.Envelope, s codec.Status) codec.Status {
	m.counters.kinds[env.Kind].became[s].Add(1)
	return s
}

// maxHandling is how long a handler may take for a Send or Request, whatever the
// sender says. A stranger could else keep handlers, and the places of connections
// that broke, for ever: while a connection is not read its break is not seen.
const maxHandling = time.Hour

// handle runs the handler for env within its deadline.
func (m *Messenger) handle(ctx context.Context, env *codec.Envelope, in *sp.Inbound) (s codec.Status, text string, body []byte) {
	m.handling.Add(1)
	defer m.handling.Add(-1)
	if ctx.Err() != nil {
		return m.became(env, codec.StatusBusy), "not begun in time", nil
	}
	if env.Kind != codec.KindPush {
		timeout := env.Timeout
		if timeout <= 0 { // our own senders always say one
			timeout = m.cfg.Timeout
		}
		bounded := &lazyContext{parent: ctx, timeout: min(timeout, maxHandling)}
		bounded.start(time.Now())
		defer bounded.stop()
		ctx = bounded
	}
	s, text, body = m.invoke(ctx, env, in)
	return m.became(env, s), text, body
}

// invoke calls the handler and survives it.
func (m *Messenger) invoke(ctx context.Context, env *codec.Envelope, in *sp.Inbound) (s codec.Status, text string, body []byte) {
	returned := false
	defer func() {
		v := recover()
		if v == nil && returned {
			return
		}
		if v == nil {
			// runtime.Goexit, as by testing.T.FailNow: nobody will get to read the reply.
			v = "it ended its goroutine"
			m.became(env, codec.StatusHandlerPanic)
		}
		s, text, body = codec.StatusHandlerPanic, fmt.Sprint(v), nil
		m.quiet.line(slog.LevelError, "handler panicked", slog.String("peer", env.From),
			slog.String("topic", env.Topic), slog.String("err", text), slog.String("stack", string(debug.Stack())))
	}()
	s, text, body = m.result(ctx, env, in)
	returned = true
	return s, text, body
}

// result is what the handler returned, and what that means.
func (m *Messenger) result(ctx context.Context, env *codec.Envelope, in *sp.Inbound) (s codec.Status, text string, body []byte) {
	reply, err := m.route(ctx, env, in)
	if err != nil {
		return verdict(ctx, env, err), fmt.Sprint(err), nil
	}
	if env.Kind != codec.KindRequest {
		return codec.StatusOK, "", nil
	}
	if len(reply) > m.cfg.MaxMessage {
		err := &codec.LimitError{What: "reply", Size: len(reply), Limit: m.cfg.MaxMessage}
		return codec.StatusReplyTooLarge, err.Error(), nil
	}
	return codec.StatusOK, "", reply
}

func (m *Messenger) route(ctx context.Context, env *codec.Envelope, in *sp.Inbound) ([]byte, error) {
	if reservedTopic(env.Topic) {
		m.reservedMu.RLock()
		fn := m.reserved[env.Topic]
		m.reservedMu.RUnlock()
		if fn == nil {
			return nil, noListener(env.Topic)
		}
		return fn(ctx, env.From, taken(in, env.Body))
	}
	h, borrows := find(m.handler, env.Topic)
	if h == nil {
		return nil, noListener(env.Topic)
	}
	body := env.Body
	if !borrows {
		body = taken(in, body)
	}
	return h.Handle(ctx, Message{ID: env.ID, Kind: env.Kind, From: env.From, Topic: env.Topic, Body: body})
}

// verdict is the status for a handler's error.
func verdict(ctx context.Context, env *codec.Envelope, err error) codec.Status {
	if chosen, ok := errors.AsType[replyStatus](err); ok && reservedTopic(env.Topic) {
		if s := chosen.ReplyStatus(); s > codec.StatusOK && s <= codec.StatusMalformed {
			return s
		}
		return codec.StatusHandlerError
	}
	// The refusal of a node that this handler asked in turn is not ours: we
	// did see the message.
	var nested *Error
	refused := !errors.As(err, &nested)
	switch {
	case refused && errors.Is(err, ErrNoListener):
		return codec.StatusNoHandler
	case refused && errors.Is(err, ErrBusy):
		return codec.StatusBusy
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return codec.StatusTimeout
	}
	return codec.StatusHandlerError
}

// replyStatus is an error of a ReservedFunc that chooses its status itself.
type replyStatus interface {
	error
	ReplyStatus() codec.Status
}

// encode writes a reply into the memory that in has for it, when it fits.
func encode(in *sp.Inbound, r *codec.Reply) []byte {
	b, err := r.Append(in.Scratch)
	if err != nil {
		return nil // cannot be: verdict and result keep status and size within bounds
	}
	return b
}

func reservedTopic(topic string) bool { return strings.HasPrefix(topic, "$") }
