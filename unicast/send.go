package unicast

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// Push queues a message for node and does not wait for it to arrive: nil means
// queued on the connection to that node. It waits, within ctx, while
// Config.QueueBytes are queued there. Pushes of one goroutine to one node are
// handled in their order as long as the connection does not break; one that was
// closed because it was idle, or gave up its place, is replaced when its pushes are
// handled, or after 5 s. What is lost with a connection, or refused over there, is
// counted in Stats and logged, here and there.
//
// Errors: as for Send, and all of them mean NotDelivered.
func (m *Messenger) Push(ctx context.Context, node, topic string, body []byte) error {
	_, err := m.call(ctx, codec.KindPush, node, topic, body)
	return err
}

// Send delivers a message to node. nil means that the handler there returned
// nil, before this nil. The deadline of ctx travels with the message and bounds
// the handler there, which has an hour at most. A topic has at most 255 bytes of UTF-8 and does not begin
// with '$'; a body has at most Config.MaxMessage bytes and may be nil; it is not
// used after the return.
//
// Without asking the network: errors of Directory.Lookup, *codec.LimitError,
// *codec.NameError, ErrReservedTopic, ErrClosed; ErrBusy, with that of ctx, when
// InFlight requests to that node were outstanding until ctx ended, and ErrBusy
// when MaxConnections are in use. With the network: the error of the connection;
// ErrNoListener, ErrBusy, ErrWrongNode, ErrClosing, ErrNotUnderstood, *RemoteError
// from the other side; that of ctx, with Outcome Unknown when the message was on
// its way already.
func (m *Messenger) Send(ctx context.Context, node, topic string, body []byte) error {
	_, err := m.call(ctx, codec.KindSend, node, topic, body)
	return err
}

// Request is Send, and returns the reply of the handler, which the caller owns;
// it is nil when empty. A reply over the other node's MaxMessage is a
// *RemoteError: the handler saw the message.
func (m *Messenger) Request(ctx context.Context, node, topic string, body []byte) ([]byte, error) {
	return m.call(ctx, codec.KindRequest, node, topic, body)
}

// Ping asks the Messenger of node, not its Handler, and returns how long the
// answer took, without the time to connect where there is a connection already.
// It does not wait for requests in flight. Errors: as for Send.
func (m *Messenger) Ping(ctx context.Context, node string) (time.Duration, error) {
	start := time.Now()
	if _, err := m.call(ctx, codec.KindPing, node, "", nil); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (m *Messenger) call(ctx context.Context, kind codec.Kind, node, topic string, body []byte) ([]byte, error) {
	if err := userTopic(topic); err != nil {
		return m.account(kind, node, body, nil, notDelivered("", err))
	}
	return m.callUnchecked(ctx, kind, node, topic, body, m.cfg.MaxMessage)
}

func (m *Messenger) callUnchecked(ctx context.Context, kind codec.Kind, node, topic string, body []byte, maxBody int) ([]byte, error) {
	if !m.calls.enter() {
		return m.account(kind, node, body, nil, notDelivered("", ErrClosed))
	}
	defer m.calls.leave()
	if len(body) > maxBody {
		return m.account(kind, node, body, nil,
			notDelivered("", &codec.LimitError{What: "body", Size: len(body), Limit: maxBody}))
	}
	c := m.begin(ctx)
	defer m.end(c)
	if c.ctx.Err() != nil {
		return m.account(kind, node, body, nil, notDelivered("", ended(c.ctx)))
	}
	env := codec.Envelope{Kind: kind, From: m.name, To: node, Topic: topic, Body: body}
	var reply []byte
	var failure *Error
	switch toSelf := node == m.name && m.handler != nil; {
	case toSelf && kind == codec.KindPush:
		failure = m.own.push(c.ctx, m, &env)
	case toSelf:
		reply, failure = m.own.exchange(c.ctx, m, env)
	case kind == codec.KindPush:
		failure = m.push(c, &env)
	default:
		reply, failure = m.exchange(c, &env)
	}
	return m.account(kind, node, body, reply, failure)
}

// account counts a call, and completes its error.
func (m *Messenger) account(kind codec.Kind, node string, body, reply []byte, failure *Error) ([]byte, error) {
	c := &m.counters.kinds[kind]
	c.sent.Add(1)
	if failure == nil || failure.Outcome != NotDelivered {
		c.bytesSent.Add(uint64(len(body)))
	}
	if failure == nil {
		c.ok.Add(1)
		return reply, nil
	}
	c.failed[failure.Outcome].Add(1)
	failure.Op, failure.Node = kind.String(), node
	return nil, failure
}

// call is what a call needs besides its stack. Calls share them one after the other.
type call struct {
	ctx  context.Context // the caller's, or lazy around it when that has no deadline
	lazy lazyContext
}

func (m *Messenger) begin(ctx context.Context) *call {
	c, _ := m.idleCalls.Get().(*call)
	if c == nil {
		c = new(call)
	}
	c.ctx = ctx
	if _, ok := ctx.Deadline(); !ok {
		c.lazy.parent, c.lazy.timeout = ctx, m.cfg.Timeout
		c.ctx = &c.lazy
	}
	return c
}

// end takes c back. What somebody may have seen the context of is left to them.
func (m *Messenger) end(c *call) {
	if c.ctx == &c.lazy {
		if c.lazy.stop() {
			return
		}
		c.lazy.parent, c.lazy.deadline, c.lazy.over = nil, time.Time{}, false
	}
	c.ctx = nil
	m.idleCalls.Put(c)
}

// attempts is how often a message that was certainly not sent, because its
// connection turned out to be dead, is tried on a new one.
const attempts = 3

// exchange sends env over the network and returns the reply to it.
func (m *Messenger) exchange(c *call, env *codec.Envelope) ([]byte, *Error) {
	for attempt := 1; ; attempt++ {
		l, failure := m.pool.acquire(c.ctx, env.To, ServiceRep)
		if failure != nil {
			return nil, failure
		}
		reply, failure, again := m.exchangeOn(c, l, env)
		m.pool.release(l)
		if !again || attempt == attempts {
			return reply, failure
		}
	}
}

// exchangeOn is one exchange over l. again says that nothing was sent, because
// l has ended.
func (m *Messenger) exchangeOn(c *call, l *link, env *codec.Envelope) (_ []byte, _ *Error, again bool) {
	ctx := c.ctx
	if env.Kind != codec.KindPing { // which tells of the node, and not of how busy its handler is
		again, err := l.takeSlot(ctx)
		if again {
			err = sp.ErrConnectionLost
		}
		if err != nil {
			return nil, notDelivered(l.ep.URL, err), again
		}
		defer func() { <-l.slots }()
	}

	begun := time.Now()
	env.ToInstance = l.ep.Instance
	env.Timeout = timeLeft(ctx, begun)
	env.ID = m.nextID()
	frame, err := env.Append(make([]byte, 0, env.Size()))
	if err != nil {
		return nil, notDelivered(l.ep.URL, err), false
	}
	raw, err := l.req.Request(ctx, frame)
	if err != nil {
		failure, again := m.notAnswered(ctx, l, begun, plain(err))
		return nil, failure, again
	}
	reply, err := codec.ParseReply(raw, m.cfg.MaxMessage)
	if err == nil && reply.ID != env.ID && !(reply.Status == codec.StatusMalformed && reply.ID == codec.ID{}) {
		err = errWrongReply
	}
	if err != nil {
		if _, tooLarge := errors.AsType[*codec.LimitError](err); !tooLarge {
			// Nothing that comes over this connection can be trusted any more.
			m.pool.retire(l, sp.ErrConnectionLost)
		}
		return nil, &Error{URL: l.ep.URL, Outcome: Unknown, Err: err}, false
	}
	if reply.Status == codec.StatusWrongNode {
		m.pool.retire(l, nil)
	}
	body, failure := outcome(env, &reply)
	if failure != nil {
		failure.URL = l.ep.URL
	}
	return body, failure, false
}

// notAnswered says what an error of Requester.Request means.
func (m *Messenger) notAnswered(ctx context.Context, l *link, begun time.Time, err error) (_ *Error, again bool) {
	text := err
	if cause := context.Cause(l.ctx); cause != nil && ctx.Err() == nil && !errors.Is(err, cause) {
		text = fmt.Errorf("%w: %w", cause, err) // that is why the connection ended
	}
	switch {
	case errors.Is(err, sp.ErrConnectionLost): // first: whatever ended it, the message was out
	case errors.Is(err, sp.ErrTooLarge):
		return notDelivered(l.ep.URL, text), false
	case errors.Is(err, sp.ErrNotSent):
		if ctx.Err() == nil {
			m.pool.retire(l, sp.ErrConnectionLost)
			again = true
		}
		return notDelivered(l.ep.URL, text), again
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && l.req.LastRead().Before(begun):
		// Slow, or gone without a word, which TCP takes minutes to notice. The next
		// call finds out on a new connection; those in flight may yet be answered.
		m.pool.retire(l, nil)
	}
	return &Error{URL: l.ep.URL, Outcome: Unknown, Err: text}, false
}

// push queues env on the connection to its node.
func (m *Messenger) push(c *call, env *codec.Envelope) *Error {
	for attempt := 1; ; attempt++ {
		l, failure := m.pool.acquire(c.ctx, env.To, ServicePull)
		if failure != nil {
			return failure
		}
		failure, again := m.pushOn(c, l, env)
		m.pool.release(l)
		if !again || attempt == attempts {
			return failure
		}
	}
}

func (m *Messenger) pushOn(c *call, l *link, env *codec.Envelope) (_ *Error, again bool) {
	ctx := c.ctx
	env.ToInstance = l.ep.Instance
	env.ID = m.nextID() // late, lest it be overtaken by many
	frame, err := env.Append(make([]byte, 0, env.Size()))
	if err != nil {
		return notDelivered(l.ep.URL, err), false
	}
	if ctx.Err() != nil {
		return notDelivered(l.ep.URL, ended(ctx)), false
	}
	if err := plain(l.push.Send(ctx, frame)); err != nil {
		switch {
		case ctx.Err() != nil:
			err = busy("bytes of pushes queued", m.cfg.QueueBytes, ctx)
		case !errors.Is(err, sp.ErrTooLarge):
			m.pool.retire(l, sp.ErrConnectionLost)
			again = true
		}
		return notDelivered(l.ep.URL, err), again
	}
	return nil, false
}

// outcome says what reply tells about the message env.
func outcome(env *codec.Envelope, reply *codec.Reply) ([]byte, *Error) {
	if reply.Status == codec.StatusOK {
		return reply.Body, nil
	}
	remote := &RemoteError{Node: env.To, Topic: env.Topic, Text: reply.Text}
	var refused error
	switch reply.Status {
	case codec.StatusHandlerError, codec.StatusReplyTooLarge:
		return nil, &Error{Outcome: Handled, Err: remote}
	case codec.StatusHandlerPanic:
		remote.Panic = true
		return nil, &Error{Outcome: Handled, Err: remote}
	case codec.StatusTimeout:
		remote.timeout = context.DeadlineExceeded
		return nil, &Error{Outcome: Handled, Err: remote}
	case codec.StatusNoHandler:
		refused = ErrNoListener
	case codec.StatusBusy:
		refused = ErrBusy
	case codec.StatusWrongNode:
		refused = ErrWrongNode
	case codec.StatusClosing:
		refused = ErrClosing
	case codec.StatusMalformed:
		refused = ErrNotUnderstood
	default:
		return nil, &Error{Outcome: Unknown, Err: fmt.Errorf("reply with %v", reply.Status)}
	}
	if reply.Text != "" && !strings.Contains(reply.Text, refused.Error()) {
		refused = fmt.Errorf("%w: %s", refused, reply.Text)
	} else if reply.Text != "" {
		refused = &refusal{reply.Text, refused}
	}
	return nil, notDelivered("", refused)
}

// refusal is a refusal in the words of the other side.
type refusal struct {
	text string
	err  error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.err }

func notDelivered(url string, err error) *Error {
	return &Error{URL: url, Outcome: NotDelivered, Err: err}
}

// busy says which limit was reached. With a ctx, it is what ended the wait.
func busy(what string, limit int, ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("%w: %d %s", ErrBusy, limit, what)
	}
	return fmt.Errorf("%w: %d %s: %w", ErrBusy, limit, what, ended(ctx))
}

func connecting(err error) error { return fmt.Errorf("connecting: %w", err) }

// timeLeft is what travels with a message at now; more than none.
func timeLeft(ctx context.Context, now time.Time) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(deadline.Sub(now), time.Millisecond)
}
