package unicast_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

func TestSendRequestPushPing(t *testing.T) {
	w := newWorld()
	got := make(chan unicast.Message, 3)
	w.listen(t, "node2", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		got <- m
		return []byte("re: " + string(m.Body)), nil
	}), unicast.Config{})
	// node1 only sends; node2 answers it all the same.
	m := w.listen(t, "node1", nil, unicast.Config{})
	ctx := within(t)

	check := func(kind codec.Kind, body string) {
		t.Helper()
		msg := await(t, "message", got)
		if msg.Kind != kind || msg.From != "node1" || msg.Topic != "greet" || string(msg.Body) != body {
			t.Errorf("the handler got %v %q from %q on %q", msg.Kind, msg.Body, msg.From, msg.Topic)
		}
	}
	if err := m.Send(ctx, "node2", "greet", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	check(codec.KindSend, "hello")
	reply, err := m.Request(ctx, "node2", "greet", []byte("hello"))
	if err != nil || string(reply) != "re: hello" {
		t.Fatalf("reply %q, %v", reply, err)
	}
	check(codec.KindRequest, "hello")
	if err := m.Push(ctx, "node2", "greet", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	check(codec.KindPush, "hello")
	if rtt, err := m.Ping(ctx, "node2"); err != nil || rtt <= 0 {
		t.Errorf("ping: %v, %v", rtt, err)
	}
	if len(got) != 0 {
		t.Error("the handler saw the ping")
	}
	s := m.Stats()
	if s.Send.OK != 1 || s.Request.OK != 1 || s.Push.OK != 1 || s.Ping.OK != 1 || s.Connections != 2 || s.Dials != 2 {
		t.Errorf("stats: %+v", s)
	}
}

func TestBodies(t *testing.T) {
	w := newWorld()
	w.listen(t, "node2", echo, unicast.Config{})
	m := w.listen(t, "node1", echo, unicast.Config{})
	full := bytes.Repeat([]byte{0, 1, 0xff}, 1<<20/3+1)[:1<<20]
	for name, body := range map[string][]byte{
		"nil": nil, "empty": {}, "binary": {0, 0xff, '\n'}, "64 KiB": full[:1<<16], "full": full,
	} {
		for _, node := range []string{"node2", "node1"} {
			reply, err := m.Request(within(t), node, "", body)
			if err != nil || !bytes.Equal(reply, body) {
				t.Errorf("%s body to %s: %d bytes came back of %d, %v", name, node, len(reply), len(body), err)
			}
		}
	}
}

func TestDeadlineTravels(t *testing.T) {
	w := newWorld()
	deadlines := make(chan bool, 1)
	h := on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		_, ok := ctx.Deadline()
		deadlines <- ok
		if m.Topic == "wait" {
			<-ctx.Done()
		}
		return nil, ctx.Err()
	})
	w.listen(t, "node2", h, unicast.Config{})
	m := w.listen(t, "node1", h, unicast.Config{})
	for _, node := range []string{"node2", "node1"} {
		for topic, err := range map[string]error{
			"request": m.Send(context.Background(), node, "request", nil), // Config.Timeout is its deadline
		} {
			if err != nil || !await(t, "deadline", deadlines) {
				t.Errorf("%s to %s came without a deadline, or failed: %v", topic, node, err)
			}
		}
		if err := m.Push(within(t), node, "push", nil); err != nil || await(t, "deadline", deadlines) {
			t.Errorf("a push to %s has a deadline, or failed: %v", node, err)
		}
	}
	// The handler ends with the sender's deadline, or with the sender's patience.
	for _, node := range []string{"node2", "node1"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50e6)
		err := m.Send(ctx, node, "wait", nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("send past the deadline: %v", err)
		}
		await(t, "deadline", deadlines)
	}
	eventually(t, "handlers end with the deadline", func() bool { return m.Stats().Handling == 0 })
}

func TestPushesKeepTheirOrder(t *testing.T) {
	const n = 20000
	w := newWorld()
	next := 0
	done := make(chan struct{})
	h := on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		if got, _ := strconv.Atoi(string(m.Body)); got != next {
			t.Errorf("push %d came after %d", got, next-1)
		}
		if next++; next == n {
			close(done)
		}
		return nil, nil
	})
	w.listen(t, "node2", h, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{QueueBytes: 64 << 10})
	for i := range n {
		if err := m.Push(within(t), "node2", "n", strconv.AppendInt(nil, int64(i), 10)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the last push", done)
}

func TestPushesToASlowNodeAreBoundedAndDisturbNobody(t *testing.T) {
	w := newWorld()
	slow := newBlock()
	w.listen(t, "slow", slow, unicast.Config{QueueBytes: 64 << 10})
	w.listen(t, "other", echo, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{QueueBytes: 64 << 10})

	body := make([]byte, 16<<10)
	fill(t, m, "slow", len(body))
	if s := m.Stats(); s.PushesQueuedBytes > 128<<10 {
		t.Errorf("%d bytes are queued, over the bound", s.PushesQueuedBytes)
	}
	if err := m.Push(within(t), "other", "x", body); err != nil {
		t.Errorf("push to another node: %v", err)
	}
	// Requests go their own way; that this handler is slow for them too is another matter.
	request := make(chan error, 1)
	go func() { request <- m.Send(within(t), "slow", "mine", nil) }()
	for await(t, "the request gets past the pushes", slow.arrived).Topic != "mine" {
	}
	close(slow.let)
	if err := await(t, "reply", request); err != nil {
		t.Error(err)
	}
	eventually(t, "the queue drains", func() bool { return m.Stats().PushesQueued == 0 })
}

func TestReservedTopics(t *testing.T) {
	w := newWorld()
	users := on(func(context.Context, unicast.Message) ([]byte, error) { return nil, errors.New("the user saw it") })
	there := w.listen(t, "node2", users, unicast.Config{})
	m := w.listen(t, "node1", users, unicast.Config{})
	ctx := within(t)
	var size atomic.Int64
	fn := func(_ context.Context, from string, body []byte) ([]byte, error) {
		size.Store(int64(len(body)))
		if from != "node1" {
			return nil, fmt.Errorf("from %q", from)
		}
		return nil, nil
	}
	for _, r := range []*unicast.Messenger{there, m} {
		if err := r.Reserve("$sys", fn); err != nil {
			t.Fatal(err)
		}
		if err := r.Reserve("$sys", fn); err == nil {
			t.Error("a topic was reserved twice")
		}
		if err := r.Reserve("sys", fn); err == nil {
			t.Error("a user's topic was reserved")
		}
	}
	for _, node := range []string{"node2", "node1"} {
		most := 1<<20 + 1<<10
		if err := m.SendReserved(ctx, node, "$sys", make([]byte, most)); err != nil || size.Load() != int64(most) {
			t.Errorf("to %s: %v, %d bytes arrived", node, err, size.Load())
		}
		_, err := errors.AsType[*codec.LimitError](m.SendReserved(ctx, node, "$sys", make([]byte, most+1)))
		if !err {
			t.Error("a larger body was sent")
		}
		wantFailure(t, m.SendReserved(ctx, node, "$other", nil), unicast.NotDelivered, unicast.ErrNoListener)
		wantFailure(t, m.SendReserved(ctx, node, "sys", nil), unicast.NotDelivered)
		wantFailure(t, m.Send(ctx, node, "$sys", nil), unicast.NotDelivered, unicast.ErrReservedTopic)
		wantFailure(t, m.Push(ctx, node, "$sys", nil), unicast.NotDelivered, unicast.ErrReservedTopic)
		_, reqErr := m.Request(ctx, node, "$sys", nil)
		wantFailure(t, reqErr, unicast.NotDelivered, unicast.ErrReservedTopic)
	}
	there.Reserve("$sys", nil)
	wantFailure(t, m.SendReserved(ctx, "node2", "$sys", nil), unicast.NotDelivered, unicast.ErrNoListener)
	there.Reserve("$sys", func(context.Context, string, []byte) ([]byte, error) {
		return nil, chosen{codec.StatusClosing}
	})
	wantFailure(t, m.SendReserved(ctx, "node2", "$sys", nil), unicast.NotDelivered, unicast.ErrClosing)
	for _, status := range []codec.Status{codec.StatusOK, codec.StatusMalformed + 1, 255} {
		there.Reserve("$odd", func(context.Context, string, []byte) ([]byte, error) { return nil, chosen{status} })
		wantFailure(t, m.SendReserved(ctx, "node2", "$odd", nil), unicast.Handled)
		there.Reserve("$odd", nil)
	}
}

// chosen is an error that chooses its status.
type chosen struct{ status codec.Status }

func (c chosen) Error() string             { return "closing" }
func (c chosen) ReplyStatus() codec.Status { return c.status }

func TestListenFailsCleanly(t *testing.T) {
	w := newWorld()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for what, cfg := range map[string]unicast.Config{
		"port in use":      {PullPort: port},
		"negative size":    {MaxMessage: -1},
		"size over 16 MiB": {MaxMessage: 16<<20 + 1},
		"negative time":    {IdleTimeout: -1},
	} {
		cfg.Logger = silent
		m, err := unicast.Listen(w.node("node1"), echo, cfg)
		if err == nil {
			m.Close()
			t.Errorf("%s: Listen took it", what)
		}
		if len(w.nodes["node1"].services) != 0 {
			t.Errorf("%s: something is still advertised", what)
		}
	}
	if _, err := unicast.Listen(noAdverts{w.node("node1")}, echo, unicast.Config{Logger: silent}); !errors.Is(err, errNoService) {
		t.Errorf("Advertise failed, and Listen says %v", err)
	}
	m := w.listen(t, "node1", echo, unicast.Config{})
	if url := w.url("node1", unicast.ServiceRep); !strings.HasPrefix(url, "tcp://127.0.0.1:") {
		t.Errorf("advertised at %q", url)
	}
	m.Close()
	if len(w.nodes["node1"].services) != 0 {
		t.Error("a closed Messenger is still advertised")
	}
}

type noAdverts struct{ *directory }

func (noAdverts) Advertise(string, string) error { return errNoService }
