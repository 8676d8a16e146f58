package unicast

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// handled, or after 5 s.
//
// When the connection breaks, the pushes that were not yet written go first on the
// next one, in their order, and that is made at once. If none of them gets out for
// 3 to 5 s, or the node is gone or was started anew, they are lost. What is lost, or
// refused over there, is counted in Stats and logged, here and there; what had been
// written and did not arrive is not known.
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
func (m *Messenger) Send(ctx context.Context, node, topic string, body []byte, options ...CallOption) error {
	_, err := m.call(ctx, codec.KindSend, node, topic, body, options...)
	return err
}

// Request is Send, and returns the reply of the handler, which the caller owns;
// it is nil when empty. A reply over the other node's MaxMessage is a
// *RemoteError: the handler saw the message.
func (m *Messenger) Request(ctx context.Context, node, topic string, body []byte, options ...CallOption) ([]byte, error) {
	return m.call(ctx, codec.KindRequest, node, topic, body, options...)
}

// CallOption is an extra of one Send or Request.
type CallOption uint8

// Idempotent says that the handler may see the message more than once. When the
// connection is lost after it was sent, it is sent again on a new one, under
// another id, twice at most and within ctx, and counted in Stats as Resent. Without
// it such a call ends at once, with Outcome Unknown. A message that was never wholly
// sent is sent on a new connection in either case.
const Idempotent CallOption = 1

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

func (m *Messenger) call(ctx context.Context, kind codec.Kind, node, topic string, body []byte, options ...CallOption) ([]byte, error) {
	if err := userTopic(topic); err != nil {
		return m.account(kind, node, body, nil, notDelivered("", err))
	}
	return m.callUnchecked(ctx, kind, node, topic, body, m.cfg.MaxMessage, slices.Contains(options, Idempotent))
}

func (m *Messenger) callUnchecked(ctx context.Context, kind codec.Kind, node, topic string, body []byte, maxBody int, idempotent bool) ([]byte, error) {
	if !m.calls.enter() {
		return m.account(kind, node, body, nil, notDelivered("", ErrClosed))
	}
	defer m.calls.leave()
	if len(body) > maxBody {
		return m.account(kind, node, body, nil,
			notDelivered("", &codec.LimitError{What: "body", Size: len(body), Limit: maxBody}))
	}
	if ctx.Err() != nil {
		return m.account(kind, node, body, nil, notDelivered("", ended(ctx)))
	}
	c := m.begin(ctx)
	defer m.end(c)
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
		reply, failure = m.exchange(c, &env, idempotent)
	}
	return m.account(kind, node, body, reply, failure)
}

// account counts a call, and completes its error.
func (m *Messenger) account(kind codec.Kind, node string, body, reply []byte, failure *Error) ([]byte, error) {
	c := &m.counters.kinds[kind]
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
	ctx   context.Context // the caller's, or lazy around it when that has no deadline
	lazy  lazyContext
	heads codec.HeadWriter
	head  []byte // of the envelope
	reply []byte // when nobody gets to keep it
	x     sp.Exchange
}

// maxIdleReply is the most memory for replies that a call keeps for the next one.
const maxIdleReply = 8 << 10

func (m *Messenger) begin(ctx context.Context) *call {
	c, _ := m.idleCalls.Get().(*call)
	if c == nil {
		c = new(call)
	}
	c.ctx = ctx
	if _, ok := ctx.Deadline(); !ok {
		c.lazy.reset(ctx, m.cfg.Timeout)
		c.ctx = &c.lazy
	}
	return c
}

// deadline is when the call ends at last; without another it counts from the time
// that it is asked for first.
func (c *call) deadline(now time.Time) time.Time {
	if c.ctx == &c.lazy {
		return c.lazy.start(now)
	}
	deadline, _ := c.ctx.Deadline()
	return deadline
}

// end takes c back. What somebody may have seen the context of is left to them.
func (m *Messenger) end(c *call) {
	if c.ctx == &c.lazy {
		if c.lazy.isReal() {
			c.lazy.stop()
			return
		}
		c.lazy.parent = nil
	}
	c.ctx = nil
	m.idleCalls.Put(c)
}

// attempts is how often a message is tried on a new connection that was certainly
// not sent, because its connection turned out to be dead, or that is idempotent.
const attempts = 3

// fate is what became of a message whose connection ended.
type fate uint8

const (
	settled fate = iota // none of these two
	notSent             // it had ended before
	lost                // it ended after the message was sent
)

// exchange sends env over the network and returns the reply to it.
func (m *Messenger) exchange(c *call, env *codec.Envelope, idempotent bool) (reply []byte, failure *Error) {
	sent := false // once at least
	for attempt := 1; ; attempt++ {
		var l *link
		var f fate
		if l, failure = m.pool.acquire(c.ctx, env.To, ServiceRep); failure == nil {
			if sent {
				m.counters.kinds[env.Kind].resent.Add(1)
			}
			reply, failure, f = m.exchangeOn(c, l, env)
			c.x = sp.Exchange{}
			m.pool.release(l)
		}
		sent = sent || f == lost
		if (f == notSent || f == lost && idempotent) && attempt < attempts && c.ctx.Err() == nil {
			continue
		}
		if sent && failure != nil && failure.Outcome == NotDelivered {
			failure.Outcome = Unknown // this time; what about the other?
		}
		return reply, failure
	}
}

// exchangeOn is one exchange over l.
func (m *Messenger) exchangeOn(c *call, l *link, env *codec.Envelope) ([]byte, *Error, fate) {
	if env.Kind != codec.KindPing { // which tells of the node, and not of how busy its handler is
		ended, err := l.takeSlot(c.ctx)
		if ended {
			return nil, notDelivered(l.ep.URL, sp.ErrConnectionLost), notSent
		}
		if err != nil {
			return nil, notDelivered(l.ep.URL, err), settled
		}
		defer func() { <-l.slots }()
	}
	begun := time.Now()
	deadline := c.deadline(begun)
	env.ToInstance = l.ep.Instance
	env.Timeout = max(deadline.Sub(begun), time.Millisecond)
	env.ID = m.nextID()
	head, err := c.heads.Append(c.head[:0], env)
	if err != nil {
		return nil, notDelivered(l.ep.URL, err), settled
	}
	c.head = head
	c.x = sp.Exchange{Head: head, Body: env.Body}
	if env.Kind != codec.KindRequest {
		c.x.Reply = c.reply[:0] // nobody gets to keep it
	}
	ctx := c.ctx
	if ctx == &c.lazy {
		ctx, c.x.Deadline = c.lazy.parent, deadline
	}
	if err := l.req.Do(ctx, &c.x); err != nil {
		return m.notAnswered(c.ctx, l, begun, plain(err))
	}
	if env.Kind != codec.KindRequest && cap(c.x.Reply) <= maxIdleReply {
		c.reply = c.x.Reply
	}
	reply, err := codec.ParseReply(c.x.Reply, m.cfg.MaxMessage)
	if err == nil && reply.ID != env.ID && !(reply.Status == codec.StatusMalformed && reply.ID == codec.ID{}) {
		err = errWrongReply
	}
	if err != nil {
		if _, tooLarge := errors.AsType[*codec.LimitError](err); !tooLarge {
			// Nothing that comes over this connection can be trusted any more.
			m.pool.retire(l, sp.ErrConnectionLost)
		}
		return nil, &Error{URL: l.ep.URL, Outcome: Unknown, Err: err}, settled
	}
	if reply.Status == codec.StatusWrongNode {
		m.pool.retire(l, nil)
	}
	if env.Kind != codec.KindRequest {
		reply.Body = nil
	}
	body, failure := outcome(env, &reply)
	if failure != nil {
		failure.URL = l.ep.URL
	}
	return body, failure, settled
}

// notAnswered says what an error of Requester.Do means.
func (m *Messenger) notAnswered(ctx context.Context, l *link, begun time.Time, err error) ([]byte, *Error, fate) {
	text := err
	if cause := context.Cause(l.ctx); cause != nil && ctx.Err() == nil && !errors.Is(err, cause) {
		text = fmt.Errorf("%w: %w", cause, err) // that is why the connection ended
	}
	f := settled
	switch {
	case errors.Is(err, sp.ErrConnectionLost): // first: whatever ended it, the message was out
		m.pool.retire(l, nil) // it may not have been noticed yet
		f = lost
	case errors.Is(err, sp.ErrTooLarge):
		return nil, notDelivered(l.ep.URL, text), settled
	case errors.Is(err, sp.ErrNotSent):
		if ctx.Err() == nil {
			m.pool.retire(l, sp.ErrConnectionLost)
			f = notSent
		}
		return nil, notDelivered(l.ep.URL, text), f
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && l.req.LastRead().Before(begun):
		// Slow, or gone without a word, which TCP takes minutes to notice. The next
		// call finds out on a new connection; those in flight may yet be answered.
		m.pool.retire(l, nil)
	}
	return nil, &Error{URL: l.ep.URL, Outcome: Unknown, Err: text}, f
}

// push queues env on the connection to its node.
func (m *Messenger) push(c *call, env *codec.Envelope) *Error {
	for attempt := 1; ; attempt++ {
		l, failure := m.pool.acquire(c.ctx, env.To, ServicePull)
		if failure != nil {
			return failure
		}
		failure, f := m.pushOn(c, l, env)
		m.pool.release(l)
		if f != notSent || attempt == attempts {
			return failure
		}
	}
}

func (m *Messenger) pushOn(c *call, l *link, env *codec.Envelope) (*Error, fate) {
	env.ToInstance = l.ep.Instance
	env.ID = m.nextID() // late, lest it be overtaken by many
	head, err := c.heads.Append(c.head[:0], env)
	if err != nil {
		return notDelivered(l.ep.URL, err), settled
	}
	c.head = head
	if err := plain(l.push.Send(c.ctx, head, env.Body)); err != nil {
		f := settled
		switch {
		case c.ctx.Err() != nil:
			err = busy("bytes of pushes queued", m.cfg.QueueBytes, c.ctx)
		case !errors.Is(err, sp.ErrTooLarge):
			m.pool.retire(l, sp.ErrConnectionLost)
			f = notSent
		}
		return notDelivered(l.ep.URL, err), f
	}
	return nil, settled
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
