package unicast_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/unicast"
)

// TestRefusals goes through the errors that are known without the network.
func TestRefusals(t *testing.T) {
	w := newWorld()
	w.listen(t, "node2", echo, unicast.Config{})
	w.node("mute") // offers nothing
	for name, err := range map[string]error{"left": errLeft, "failed": errFailed} {
		w.node(name)
		w.change(name, func(p *place) { p.err = err })
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	w.place("down", "tcp://"+closed.Addr().String())
	m := w.listen(t, "node1", echo, unicast.Config{})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name, node, topic string
		size              int
		ctx               context.Context
		cause             error
		text              string
	}{
		{name: "unknown node", node: "nobody", cause: errUnknown, text: "to nobody: unknown node (NOT DELIVERED)"},
		{name: "bad name", node: "no\nbody", cause: errUnknown, text: `to "no\nbody": unknown node (NOT DELIVERED)`},
		{name: "left", node: "left", cause: errLeft, text: "to left: node has left (NOT DELIVERED)"},
		{name: "failed", node: "failed", cause: errFailed, text: "to failed: node has failed (NOT DELIVERED)"},
		{name: "no service", node: "mute", cause: errNoService, text: "to mute: no such service: unicast-"},
		{name: "too large", node: "node2", size: 1<<20 + 1,
			text: "to node2: body is 1048577 bytes, the limit is 1048576 bytes (NOT DELIVERED)"},
		{name: "bad topic", node: "node2", topic: "a\nb", text: `to node2: topic "a\nb" has`},
		{name: "reserved topic", node: "node2", topic: "$a", cause: unicast.ErrReservedTopic,
			text: "to node2: topics that begin with '$' are reserved (NOT DELIVERED)"},
		{name: "too late", node: "node2", ctx: cancelled, cause: context.Canceled,
			text: "to node2: context canceled (NOT DELIVERED)"},
		{name: "connection refused", node: "down",
			text: "to down at tcp://" + closed.Addr().String() + ": connect: connection refused (NOT DELIVERED)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := row.ctx
			if ctx == nil {
				ctx = within(t)
			}
			body := make([]byte, row.size)
			_, requestErr := m.Request(ctx, row.node, row.topic, body)
			for op, err := range map[string]error{
				"push":    m.Push(ctx, row.node, row.topic, body),
				"send":    m.Send(ctx, row.node, row.topic, body),
				"request": requestErr,
			} {
				e := wantFailure(t, err, unicast.NotDelivered)
				if row.cause != nil && !errors.Is(err, row.cause) {
					t.Errorf("%v does not match %v", err, row.cause)
				}
				if e.Op != op || e.Node != row.node || !strings.HasPrefix(err.Error(), "unicast: "+op+" "+row.text) {
					t.Errorf("error is\n%s, want\nunicast: %s %s", err, op, row.text)
				}
			}
			if err := m.Send(ctx, "node1", row.topic, body); row.size > 0 || row.topic != "" || row.ctx != nil {
				wantFailure(t, err, unicast.NotDelivered)
			}
		})
	}
	if s := m.Stats(); s.Send.NotDelivered == 0 || s.Send.Unknown+s.Send.HandlerFailed > 0 || s.DialFailures != 3 {
		t.Errorf("stats: %+v", s)
	}
}

// TestHandlerOutcomes goes through what a handler can do, here and over there.
func TestHandlerOutcomes(t *testing.T) {
	w := newWorld()
	var third *unicast.Messenger
	var log lines
	h := on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		switch m.Topic {
		case "error":
			return nil, errors.New("out of paper")
		case "long":
			return nil, errors.New(strings.Repeat("ä", 4000))
		case "panic":
			panic("kaboom")
		case "nobody":
			return nil, fmt.Errorf("print: %w", unicast.ErrNoListener)
		case "full":
			return nil, unicast.ErrBusy
		case "nested":
			return nil, third.Send(ctx, "node3", "nobody", nil)
		case "large":
			return make([]byte, 1<<20+1), nil
		case "late":
			<-ctx.Done()
			return nil, fmt.Errorf("printing: %w", ctx.Err())
		}
		return nil, nil
	})
	cfg := unicast.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	there := w.listen(t, "node2", h, cfg)
	third = w.listen(t, "node3", h, unicast.Config{})
	m := w.listen(t, "node1", h, cfg)
	for _, row := range []struct {
		topic   string
		outcome unicast.Outcome
		cause   error
		text    string
	}{
		{"error", unicast.Handled, nil, ": its handler failed: out of paper (HANDLER FAILED)"},
		{"long", unicast.Handled, nil, "ää (HANDLER FAILED)"},
		{"panic", unicast.Handled, nil, ": its handler panicked: kaboom (HANDLER FAILED)"},
		{"nobody", unicast.NotDelivered, unicast.ErrNoListener, ": print: no listener (NOT DELIVERED)"},
		{"full", unicast.NotDelivered, unicast.ErrBusy, ": busy (NOT DELIVERED)"},
		// That node3 refused it does not say that node2 did not see it.
		{"nested", unicast.Handled, nil, "no listener (NOT DELIVERED) (HANDLER FAILED)"},
		{"large", unicast.Handled, nil, ": its handler failed: reply is 1048577 bytes, the limit is 1048576 bytes (HANDLER FAILED)"},
	} {
		for _, node := range []string{"node2", "node1"} {
			t.Run(row.topic+" "+node, func(t *testing.T) {
				_, err := m.Request(within(t), node, row.topic, nil)
				e := wantFailure(t, err, row.outcome)
				if row.cause != nil && !errors.Is(err, row.cause) || row.cause == nil && errors.Is(err, unicast.ErrNoListener) {
					t.Errorf("error %v has the wrong cause", err)
				}
				if !strings.HasSuffix(err.Error(), row.text) {
					t.Errorf("error is %q, want …%q", err, row.text)
				}
				if remote, ok := errors.AsType[*unicast.RemoteError](err); row.outcome == unicast.Handled {
					if !ok || remote.Node != node || remote.Topic != row.topic || remote.Panic != (row.topic == "panic") {
						t.Errorf("remote error: %+v", remote)
					}
				}
				if node == "node2" && e.URL != w.url("node2", unicast.ServiceRep) {
					t.Errorf("URL is %q", e.URL)
				}
			})
		}
	}
	if text := log.String(); strings.Count(text, "handler panicked") != 2 || !strings.Contains(text, "outcome_test.go") {
		t.Errorf("two panics should have been logged with their stacks:\n%s", text)
	}
	if err := m.Send(within(t), "node2", "fine", nil); err != nil {
		t.Errorf("after all that: %v", err)
	}
	s := there.Stats().Request
	if s.Received != 7 || s.HandlerErrors != 3 || s.HandlerPanics != 1 || s.NoListener != 1 || s.Busy != 1 || s.RepliesTooLarge != 1 {
		t.Errorf("stats: %+v", s)
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestHandlerTimeout: the deadline that travelled ends before the sender's own
// when the message says so.
func TestHandlerTimeout(t *testing.T) {
	w := newWorld()
	late := on(func(ctx context.Context, _ unicast.Message) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	w.listen(t, "node2", late, unicast.Config{})
	env := codec.Envelope{Kind: codec.KindSend, ID: codec.NewID(7, 7), From: "x", To: "node2", Timeout: time.Millisecond}
	reply := rawRequest(t, w.url("node2", unicast.ServiceRep), &env)
	if reply.Status != codec.StatusTimeout || reply.ID != env.ID {
		t.Fatalf("reply: %+v", reply)
	}
	// And this is how a sender that still listens understands it.
	fake := w.fakeReplier(t, "fake", func(env codec.Envelope) []byte {
		return encoded(&codec.Reply{ID: env.ID, Status: codec.StatusTimeout, Text: "too late"})
	})
	defer fake.Close()
	m := w.listen(t, "node1", nil, unicast.Config{})
	err := m.Send(within(t), "fake", "", nil)
	wantFailure(t, err, unicast.Handled, context.DeadlineExceeded)
	if _, ok := errors.AsType[*unicast.RemoteError](err); !ok {
		t.Errorf("%v is no *RemoteError", err)
	}
}

// fakeReplier is a node that answers as answer says.
func (w *world) fakeReplier(t *testing.T, name string, answer func(codec.Envelope) []byte) *sp.Replier {
	t.Helper()
	rep, err := sp.ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) []byte {
		env, err := codec.ParseEnvelope(in.Body, 1<<20)
		if err != nil {
			t.Error(err)
		}
		return answer(env)
	}, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rep.Close() })
	w.node(name)
	w.change(name, func(p *place) { p.services[unicast.ServiceRep] = rep.URL() })
	return rep
}

func encoded(r *codec.Reply) []byte {
	b, err := r.Append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// rawRequest sends env as a stranger would.
func rawRequest(t *testing.T, url string, env *codec.Envelope) codec.Reply {
	t.Helper()
	b, err := env.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := rawBytes(t, within(t), url, b)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := codec.ParseReply(raw, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func rawBytes(t *testing.T, ctx context.Context, url string, b []byte) ([]byte, error) {
	t.Helper()
	req, err := sp.DialRequester(within(t), url, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer req.Close()
	return req.Request(ctx, b)
}

// TestStrangeReplies: what is not the answer to our message leaves it Unknown.
func TestStrangeReplies(t *testing.T) {
	w := newWorld()
	m := w.listen(t, "node1", nil, unicast.Config{})
	for name, answer := range map[string]func(codec.Envelope) []byte{
		"garbage": func(codec.Envelope) []byte { return []byte("hello") },
		"empty":   func(codec.Envelope) []byte { return []byte{} },
		"another": func(env codec.Envelope) []byte { return encoded(&codec.Reply{ID: codec.NewID(1, 1)}) },
		"large":   func(env codec.Envelope) []byte { return encoded(&codec.Reply{ID: env.ID, Body: make([]byte, 1<<20+1)}) },
	} {
		t.Run(name, func(t *testing.T) {
			w.fakeReplier(t, name, answer)
			wantFailure(t, m.Send(within(t), name, "", nil), unicast.Unknown)
		})
	}
	w.fakeReplier(t, "old", func(codec.Envelope) []byte {
		return encoded(&codec.Reply{Status: codec.StatusMalformed, Text: "version 9"})
	})
	wantFailure(t, m.Send(within(t), "old", "", nil), unicast.NotDelivered, unicast.ErrNotUnderstood)
}

// TestStrangeMessages: what a receiver refuses, how, and that it counts it.
func TestStrangeMessages(t *testing.T) {
	w := newWorld()
	handled := make(chan unicast.Message, 10)
	there := w.listen(t, "node2", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		handled <- m
		return nil, nil
	}), unicast.Config{MaxMessage: 1000})
	rep, pull := w.url("node2", unicast.ServiceRep), w.url("node2", unicast.ServicePull)
	send := func(edit func(*codec.Envelope)) *codec.Envelope {
		env := &codec.Envelope{Kind: codec.KindSend, ID: codec.NewID(9, 1), From: "x", To: "node2"}
		edit(env)
		return env
	}
	for _, row := range []struct {
		name string
		env  *codec.Envelope
		want codec.Status
	}{
		{"kind push", send(func(e *codec.Envelope) { e.Kind = codec.KindPush }), codec.StatusMalformed},
		{"kind gossip", send(func(e *codec.Envelope) { e.Kind = codec.KindGossip }), codec.StatusMalformed},
		{"too large", send(func(e *codec.Envelope) { e.Body = make([]byte, 1001) }), codec.StatusMalformed},
		{"wrong name", send(func(e *codec.Envelope) { e.To = "node3" }), codec.StatusWrongNode},
		{"wrong instance", send(func(e *codec.Envelope) { e.ToInstance = 99 }), codec.StatusWrongNode},
		{"reserved topic", send(func(e *codec.Envelope) { e.Topic = "$x" }), codec.StatusNoHandler},
	} {
		if got := rawRequest(t, rep, row.env); got.Status != row.want || got.ID != row.env.ID {
			t.Errorf("%s: reply %+v, want %v", row.name, got, row.want)
		}
	}
	// Not ours at all: no answer, since it could be taken for data.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if raw, err := rawBytes(t, ctx, rep, []byte("hello")); !errors.Is(err, context.Canceled) {
		t.Errorf("a foreign message was answered with %q, %v", raw, err)
	}
	push, err := sp.DialPusher(within(t), pull, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer push.Close()
	again := send(func(e *codec.Envelope) { e.ID, e.Kind, e.Topic = codec.NewID(9, 2), codec.KindPush, "twice" })
	for _, env := range []*codec.Envelope{
		send(func(*codec.Envelope) {}), again, again,
		send(func(e *codec.Envelope) { e.Kind, e.To = codec.KindPush, "node3" }),
	} {
		b, _ := env.Append(nil)
		push.Send(within(t), b)
	}
	push.Send(within(t), []byte("hello"))
	eventually(t, "everything was counted", func() bool {
		s := there.Stats()
		return s.Foreign == 2 && s.NotUnderstood == 4 && s.Send.WrongNode == 2 && s.Push.WrongNode == 1 &&
			s.Push.Duplicates == 1 && s.Push.Handled == 1
	})
	if m := await(t, "message", handled); m.Topic != "twice" || len(handled) != 0 {
		t.Errorf("the handler saw %+v, and %d more", m, len(handled))
	}
}

// TestNodeAtAReusedPort: at the address of node2 another node listens now.
func TestNodeAtAReusedPort(t *testing.T) {
	w := newWorld()
	w.listen(t, "node3", echo, unicast.Config{})
	w.node("node2")
	w.change("node2", func(p *place) { p.services[unicast.ServiceRep] = w.nodes["node3"].services[unicast.ServiceRep] })
	m := w.listen(t, "node1", nil, unicast.Config{})
	err := m.Send(within(t), "node2", "", nil)
	wantFailure(t, err, unicast.NotDelivered, unicast.ErrWrongNode)
	if !strings.HasSuffix(err.Error(), ": another node answered: it is node3 (NOT DELIVERED)") {
		t.Error(err)
	}
	eventually(t, "the connection to the wrong node is closed", func() bool { return m.Stats().Connections == 0 })
	// The same node, started anew, and we have not heard of it yet.
	w.change("node3", func(p *place) { p.instance += 100 })
	wantFailure(t, m.Send(within(t), "node3", "", nil), unicast.NotDelivered, unicast.ErrWrongNode)
	_, err = m.Ping(within(t), "node2")
	wantFailure(t, err, unicast.NotDelivered, unicast.ErrWrongNode)
}

// TestOutcomesAreTrue kills connections at random moments while messages are
// under way, and compares what the senders were told with what was handled.
func TestOutcomesAreTrue(t *testing.T) {
	const n = 400
	w := newWorld()
	var handled [n]atomic.Int32
	w.listen(t, "node2", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		handled[binary.BigEndian.Uint32(m.Body)].Add(1)
		return nil, nil
	}), unicast.Config{})
	p := newProxy(t, strings.TrimPrefix(w.url("node2", unicast.ServiceRep), "tcp://"))
	w.change("node2", func(at *place) { at.services[unicast.ServiceRep] = "tcp://" + p.addr })
	m := w.listen(t, "node1", nil, unicast.Config{})

	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond):
				p.kill()
			}
		}
	})
	var errs [n]error
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < n; i += 8 {
				errs[i] = m.Send(within(t), "node2", "", binary.BigEndian.AppendUint32(nil, uint32(i)))
			}
		})
	}
	wg.Wait()
	close(stop)
	killer.Wait()

	told := map[string]int{}
	for i, err := range errs {
		times := handled[i].Load()
		e, _ := errors.AsType[*unicast.Error](err)
		switch {
		case times > 1:
			t.Errorf("message %d was handled %d times", i, times)
		case err == nil:
			told["handled"]++
			if times != 1 {
				t.Errorf("message %d: nil, and it was not handled", i)
			}
		case e == nil || e.Outcome == unicast.Handled:
			t.Errorf("message %d: %v", i, err)
		default:
			told[e.Outcome.String()]++
			if e.Outcome == unicast.NotDelivered && times != 0 {
				t.Errorf("message %d was handled: %v", i, err)
			}
		}
	}
	t.Logf("%v, %d connections killed", told, p.killed.Load())
	if told["handled"] == 0 {
		t.Error("nothing got through at all")
	}
}

// TestConnectionLostMidRequest: the handler has it, and the connection breaks.
func TestConnectionLostMidRequest(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{})
	p := newProxy(t, strings.TrimPrefix(w.url("node2", unicast.ServiceRep), "tcp://"))
	w.change("node2", func(at *place) { at.services[unicast.ServiceRep] = "tcp://" + p.addr })
	m := w.listen(t, "node1", nil, unicast.Config{})
	result := make(chan error, 1)
	go func() { result <- m.Send(within(t), "node2", "", nil) }()
	await(t, "the handler has it", h.arrived)
	p.kill()
	err := await(t, "the call notices", result)
	wantFailure(t, err, unicast.Unknown, sp.ErrConnectionLost)
	// The next one goes over a new connection.
	close(h.let)
	if err := m.Send(within(t), "node2", "", nil); err != nil {
		t.Error(err)
	}
	eventually(t, "the loss is counted", func() bool { return m.Stats().Lost == 1 })
	if s := m.Stats(); s.Dials != 2 {
		t.Errorf("%d dials, want 2", s.Dials)
	}
}
