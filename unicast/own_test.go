package unicast_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/parley-mesh/parley/unicast"
)

func TestSendingToOneselfNeedsNoNetwork(t *testing.T) {
	w := newWorld()
	kept := []byte("kept")
	m := w.listen(t, "node1", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		clear(m.Body)
		return kept, nil
	}), unicast.Config{})
	w.change("node1", func(p *place) { clear(p.services) }) // nobody could find it
	body := []byte("mine")
	reply, err := m.Request(within(t), "node1", "", body)
	if err != nil || string(reply) != "kept" {
		t.Fatalf("%q, %v", reply, err)
	}
	clear(reply)
	if string(body) != "mine" || string(kept) != "kept" {
		t.Errorf("bodies are shared: %q, %q", body, kept)
	}
	if err := m.Push(within(t), "node1", "", body); err != nil {
		t.Fatal(err)
	}
	eventually(t, "push is handled", func() bool { return m.Stats().Push.Handled == 1 })
	if !bytes.Equal(body, []byte("mine")) {
		t.Errorf("the body of a push is shared: %q", body)
	}
	if _, err := m.Ping(within(t), "node1"); err != nil {
		t.Error(err)
	}
	if s := m.Stats(); s.Dials != 0 || s.RepListener.Accepted != 0 || s.Request.Handled != 1 || s.Ping.Handled != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestOwnPushesAreOrderedAndBounded(t *testing.T) {
	w := newWorld()
	h := newBlock()
	m := w.listen(t, "node1", h, unicast.Config{QueueBytes: 10 << 10})
	m.Push(within(t), "node1", "first", nil)
	await(t, "the worker is at it", h.arrived)
	n := 0
	for ; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := m.Push(ctx, "node1", "", append(make([]byte, 1<<10), byte(n)))
		cancel()
		if err != nil {
			wantFailure(t, err, unicast.NotDelivered, unicast.ErrBusy, context.DeadlineExceeded)
			break
		}
	}
	if s := m.Stats(); n == 0 || n > 10 || s.PushesQueued != n || s.PushesQueuedBytes > 10<<10 {
		t.Errorf("%d were taken; stats: %+v", n, s)
	}
	close(h.let)
	for i := range n {
		if m := await(t, "push", h.arrived); m.Body[1<<10] != byte(i) {
			t.Errorf("push %d came as %d", m.Body[1<<10], i)
		}
	}
}

func TestOwnHandlerMayOutliveTheCall(t *testing.T) {
	w := newWorld()
	let := make(chan struct{})
	m := w.listen(t, "node1", on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		if m.Topic == "exit" {
			runtime.Goexit() // as t.FailNow would
		}
		<-let // whatever ctx says
		return nil, nil
	}), unicast.Config{InFlight: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	wantFailure(t, m.Send(ctx, "node1", "", nil), unicast.Unknown, context.DeadlineExceeded)
	// It still counts, so that such handlers cannot pile up.
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	wantFailure(t, m.Send(ctx, "node1", "", nil), unicast.NotDelivered, unicast.ErrBusy)
	close(let)
	err := m.Send(within(t), "node1", "exit", nil)
	wantFailure(t, err, unicast.Handled)
	if remote, ok := errors.AsType[*unicast.RemoteError](err); !ok || !remote.Panic {
		t.Errorf("a handler that ended its goroutine: %v", err)
	}
	if s := m.Stats(); s.Handling != 0 || s.Send.HandlerPanics != 1 {
		t.Errorf("stats: %+v", s)
	}
}

// TestHandlerOfAPushEndsItsGoroutine: the next push is handled all the same.
func TestHandlerOfAPushEndsItsGoroutine(t *testing.T) {
	w := newWorld()
	m := w.listen(t, "node1", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		if m.Topic == "exit" {
			runtime.Goexit()
		}
		return nil, nil
	}), unicast.Config{})
	for _, topic := range []string{"exit", "", "exit", ""} {
		if err := m.Push(within(t), "node1", topic, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the others are handled", func() bool { return m.Stats().Push.Handled == 2 })
	if err := m.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	if s := m.Stats(); s.Push.HandlerPanics != 2 || s.Handling != 0 || s.PushesLost != (unicast.LostPushes{}) {
		t.Errorf("stats: %+v", s)
	}
}

// TestEmptyBodiesAreNil: to oneself as over the network.
func TestEmptyBodiesAreNil(t *testing.T) {
	w := newWorld()
	got := make(chan []byte, 1)
	h := on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		got <- m.Body
		return []byte{}, nil
	})
	w.listen(t, "node2", h, unicast.Config{})
	m := w.listen(t, "node1", h, unicast.Config{})
	for _, node := range []string{"node2", "node1"} {
		reply, err := m.Request(within(t), node, "", []byte{})
		if body := await(t, "request", got); err != nil || body != nil || reply != nil {
			t.Errorf("%s: body %#v, reply %#v, %v; want nil", node, body, reply, err)
		}
		if err := m.Push(within(t), node, "", []byte{}); err != nil {
			t.Fatal(err)
		}
		if body := await(t, "push", got); body != nil {
			t.Errorf("%s: body of a push %#v, want nil", node, body)
		}
	}
}
