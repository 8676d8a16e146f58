package unicast_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
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
	refused := "connection refused (NOT DELIVERED)"
	if runtime.GOOS == "windows" {
		refused = "" // in its own words
	}
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
			text: "to down at tcp://" + closed.Addr().String() + ": " + refused},
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

// TestReplyOverTheLimit ends the connection. That is no reason to say that the
// messages on it were too large, and were not delivered.
func TestReplyOverTheLimit(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		if m.Topic == "large" {
			return make([]byte, 64<<10), nil
		}
		return h.Handle(ctx, m)
	}), unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{MaxMessage: 1 << 10})
	bystander := make(chan error, 1)
	go func() { bystander <- m.Send(within(t), "node2", "", nil) }()
	await(t, "another message arrives", h.arrived)
	_, err := m.Request(within(t), "node2", "large", nil)
	wantFailure(t, err, unicast.Unknown, sp.ErrConnectionLost)
	wantFailure(t, await(t, "the other one notices", bystander), unicast.Unknown, sp.ErrConnectionLost)
}

// TestHandlersOfStrangersEnd: whatever deadline a message claims.
func TestHandlersOfStrangersEnd(t *testing.T) {
	w := newWorld()
	deadlines := make(chan time.Time, 1)
	w.listen(t, "node2", on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		deadline, _ := ctx.Deadline()
		deadlines <- deadline
		return nil, nil
	}), unicast.Config{Timeout: time.Minute})
	for i, row := range []struct{ claimed, most time.Duration }{
		{0, time.Minute}, {time.Second, time.Second}, {49 * 24 * time.Hour, time.Hour},
	} {
		rawRequest(t, w.url("node2", unicast.ServiceRep), &codec.Envelope{
			Kind: codec.KindSend, ID: codec.NewID(7, uint64(i)), From: "x", To: "node2", Timeout: row.claimed,
		})
		deadline := await(t, "deadline", deadlines)
		if deadline.IsZero() || time.Until(deadline) > row.most {
			t.Errorf("timeout %v: the handler's deadline is %v, want at most %v from now", row.claimed, deadline, row.most)
		}
	}
}

// TestCausesMayBeShort: a Directory's error need not repeat who was looked for.
func TestCausesMayBeShort(t *testing.T) {
	w := newWorld()
	w.node("node2")
	w.change("node2", func(p *place) { p.err = shortError{} })
	m := w.listen(t, "node1", nil, unicast.Config{})
	err := m.Send(within(t), "node2", "", nil)
	wantFailure(t, err, unicast.NotDelivered, shortError{})
	if want := "unicast: send to node2: gone fishing (NOT DELIVERED)"; err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
}

type shortError struct{}

func (shortError) Error() string  { return "directory: lookup node2: gone fishing" }
func (shortError) Reason() string { return "gone fishing" }
