package unicast_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/unicast"
)

func TestShutdownFinishesWhatWasBegun(t *testing.T) {
	w := newWorld()
	here, there := newBlock(), newBlock()
	var pushes int
	w.listen(t, "node2", on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		if m.Topic == "push" {
			pushes++
			return nil, nil
		}
		return there.Handle(ctx, m)
	}), unicast.Config{})
	var ownPushes int
	m := w.listen(t, "node1", on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		if m.Topic == "push" {
			ownPushes++
			return nil, nil
		}
		return here.Handle(ctx, m)
	}), unicast.Config{})
	caller := w.listen(t, "node3", nil, unicast.Config{})

	results := make(chan error, 3)
	go func() { results <- m.Send(within(t), "node2", "out", nil) }()
	go func() { results <- caller.Send(within(t), "node1", "in", nil) }()
	go func() { results <- m.Send(within(t), "node1", "own", nil) }()
	await(t, "call out", there.arrived)
	await(t, "call in", here.arrived)
	await(t, "call to itself", here.arrived)
	for range 1000 {
		if err := errors.Join(m.Push(within(t), "node2", "push", nil), m.Push(within(t), "node1", "push", nil)); err != nil {
			t.Fatal(err)
		}
	}
	rep := w.nodes["node1"].services[unicast.ServiceRep]
	down := make(chan error, 1)
	go func() { down <- m.Shutdown(within(t)) }()
	eventually(t, "it is not advertised", func() bool {
		_, err := caller.Ping(within(t), "node1")
		return errors.Is(err, errNoService)
	})
	// New calls are refused, here and from those who have not heard of it.
	for _, node := range []string{"node1", "node2"} {
		err := m.Send(within(t), node, "", nil)
		wantFailure(t, err, unicast.NotDelivered, unicast.ErrClosed, net.ErrClosed)
	}
	w.change("node1", func(p *place) { p.services[unicast.ServiceRep] = rep })
	wantFailure(t, caller.Send(within(t), "node1", "in", nil), unicast.NotDelivered, unicast.ErrClosing)
	select {
	case err := <-down:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(here.let)
	close(there.let)
	for range 3 {
		if err := await(t, "call", results); err != nil {
			t.Errorf("a call that had begun: %v", err)
		}
	}
	if err := await(t, "Shutdown", down); err != nil {
		t.Error(err)
	}
	if ownPushes != 1000 {
		t.Errorf("%d of 1000 pushes to itself were handled", ownPushes)
	}
	if s := m.Stats(); s.PushesLost != (unicast.LostPushes{}) {
		t.Errorf("lost: %+v", s.PushesLost)
	}
	if err := errors.Join(m.Shutdown(within(t)), m.Close()); err != nil {
		t.Errorf("and again: %v", err)
	}
}

func TestShutdownDrainsPushes(t *testing.T) {
	const n = 2000
	w := newWorld()
	there := w.listen(t, "node2", echo, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{})
	for range n {
		if err := m.Push(within(t), "node2", "", make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all arrive", func() bool { return there.Stats().Push.Handled == n })
}

func TestShutdownSaysWhatIsLeft(t *testing.T) {
	w := newWorld()
	stubborn := make(chan struct{})
	arrived := make(chan struct{}, 10)
	h := on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		arrived <- struct{}{}
		<-stubborn // does not heed its context
		return nil, nil
	})
	w.listen(t, "node2", h, unicast.Config{QueueBytes: 1})
	m := w.listen(t, "node1", h, unicast.Config{})
	caller := w.listen(t, "node3", nil, unicast.Config{})
	results := make(chan error, 2)
	go func() { results <- m.Send(within(t), "node2", "", nil) }()
	go func() { results <- caller.Send(within(t), "node1", "", nil) }()
	await(t, "call out", arrived)
	await(t, "call in", arrived)
	fill(t, m, "node2", 1<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- m.Shutdown(ctx) }()
	err := await(t, "Shutdown ends with its context, whatever handlers do", down)
	if !errors.Is(err, context.DeadlineExceeded) ||
		!strings.HasPrefix(err.Error(), "unicast: shutdown: 1 calls in flight, 1 handlers at work, ") ||
		!strings.Contains(err.Error(), " bytes) not written: ") {
		t.Errorf("Shutdown: %v", err)
	}
	wantFailure(t, await(t, "call", results), unicast.Unknown)
	wantFailure(t, await(t, "call", results), unicast.Unknown)
	close(stubborn)
	m.Close() // waits for them
	if s := m.Stats(); s.Handling != 0 || s.InFlight != 0 || s.Connections != 0 || s.PushesLost.Closed == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestCloseEndsEverythingAtOnce(t *testing.T) {
	w := newWorld()
	w.place("mute", newRawPeer(t, "", true).url)
	there, here := newBlock(), newBlock()
	w.listen(t, "node2", there, unicast.Config{InFlight: 100})
	m := w.listen(t, "node1", here, unicast.Config{InFlight: 1, QueueBytes: 1})
	type result struct {
		outcome unicast.Outcome
		err     error
	}
	results := make(chan result, 10)
	call := func(outcome unicast.Outcome, f func() error) {
		go func() { results <- result{outcome, f()} }()
	}
	ctx := within(t)
	send := func(node string) func() error { return func() error { return m.Send(ctx, node, "", nil) } }
	push := func(node string) func() error { return func() error { return m.Push(ctx, node, "", nil) } }
	call(unicast.Unknown, send("node2")) // being handled over there
	await(t, "request", there.arrived)
	call(unicast.Unknown, send("node1")) // being handled here
	await(t, "request", here.arrived)
	m.Push(ctx, "node1", "", nil) // being handled here
	await(t, "push", here.arrived)
	m.Push(ctx, "node1", "", nil)             // queued
	call(unicast.NotDelivered, send("node2")) // waiting for its turn
	call(unicast.NotDelivered, send("node1")) // waiting for its turn
	call(unicast.NotDelivered, push("node1")) // waiting for room
	call(unicast.NotDelivered, send("mute"))  // connecting
	call(unicast.NotDelivered, push("mute"))  // connecting
	eventually(t, "all are under way", func() bool { return m.Stats().InFlight == 7 && m.Stats().Dials == 3 })

	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { m.Close() })
	}
	for range 7 {
		r := await(t, "call ends", results)
		wantFailure(t, r.err, r.outcome, unicast.ErrClosed, net.ErrClosed)
	}
	wg.Wait()
	if s := m.Stats(); s.Connections != 0 || s.Handling != 0 || s.PushesLost.Closed != 1 {
		t.Errorf("stats: %+v", s)
	}
	wantFailure(t, m.Push(ctx, "node2", "", nil), unicast.NotDelivered, unicast.ErrClosed)
}

// TestManyConcurrentRequests: 10,000 at once, here limited to 64 in flight, and
// afterwards nothing is left of them.
func TestManyConcurrentRequests(t *testing.T) {
	const n = 10000
	w := newWorld()
	there := w.listen(t, "node2", echo, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{InFlight: 64})
	ctx := within(t)
	if err := m.Send(ctx, "node2", "", nil); err != nil {
		t.Fatal(err)
	}
	goroutines, fds := resources()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			body := fmt.Sprint(i)
			reply, err := m.Request(ctx, "node2", "", []byte(body))
			if err != nil || string(reply) != body {
				t.Errorf("request %s: %q, %v", body, reply, err)
			}
		})
	}
	wg.Wait()
	eventually(t, "goroutines and descriptors are what they were", func() bool {
		g, f := resources()
		return g <= goroutines+2 && f <= fds
	})
	if s := m.Stats(); s.Request.OK != n || s.InFlight != 0 || s.Connections != 1 || s.Dials != 1 {
		t.Errorf("stats: %+v", s)
	}
	if s := there.Stats(); s.Request.Handled != n || s.Handling != 0 {
		t.Errorf("stats over there: %+v", s)
	}
}

func TestShutdownHandlesItsOwnPushes(t *testing.T) {
	w := newWorld()
	h := newBlock()
	m := w.listen(t, "node1", h, unicast.Config{})
	for range 3 {
		if err := m.Push(within(t), "node1", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the first is being handled", h.arrived)
	down := make(chan error, 1)
	go func() { down <- m.Shutdown(within(t)) }()
	eventually(t, "it refuses more", func() bool { return errors.Is(m.Push(within(t), "node1", "", nil), unicast.ErrClosed) })
	close(h.let)
	if err := await(t, "Shutdown", down); err != nil {
		t.Error(err)
	}
	if s := m.Stats(); s.Push.Handled < 3 || s.Push.Handled != s.Push.OK || s.PushesLost != (unicast.LostPushes{}) {
		t.Errorf("stats: %+v", s)
	}
}

// TestShutdownWritesTheLastReplies: they are large, and on their way when the
// handlers are done.
func TestShutdownWritesTheLastReplies(t *testing.T) {
	w := newWorld()
	caller := w.listen(t, "node1", nil, unicast.Config{})
	for range 10 {
		h := newBlock()
		m := w.listen(t, "node2", h, unicast.Config{})
		results := make(chan error, 3)
		for range cap(results) {
			go func() {
				_, err := caller.Request(within(t), "node2", "", make([]byte, 1<<20))
				results <- err
			}()
			await(t, "request arrives", h.arrived)
		}
		close(h.let)
		if err := m.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
		for range cap(results) {
			if err := await(t, "reply", results); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestAnotherMessengerOfTheSameNode: its messages are not taken for those of the
// one before.
func TestAnotherMessengerOfTheSameNode(t *testing.T) {
	w := newWorld()
	w.listen(t, "node2", echo, unicast.Config{})
	dir := w.node("node1")
	for range 2 {
		m := listen(t, dir, echo, unicast.Config{})
		for _, node := range []string{"node2", "node1"} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := m.Send(ctx, node, "", nil); err != nil {
				t.Errorf("to %s: %v", node, err)
			}
			cancel()
		}
		m.Close()
	}
}

// TestShutdownHandlesThePushesItReceived: their senders could not be told else.
func TestShutdownHandlesThePushesItReceived(t *testing.T) {
	const n = 100
	for _, inTime := range []bool{true, false} {
		w := newWorld()
		h := newBlock()
		there := w.listen(t, "node2", h, unicast.Config{})
		m := w.listen(t, "node1", nil, unicast.Config{})
		for range n {
			if err := m.Push(within(t), "node2", "", nil); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the first is being handled", func() bool { return there.Stats().PullListener.Handling == 1 })
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		down := make(chan error, 1)
		go func() { down <- there.Shutdown(ctx) }()
		eventually(t, "it is closing", func() bool {
			return errors.Is(there.Push(within(t), "node1", "", nil), unicast.ErrClosed)
		})
		if inTime {
			close(h.let)
		} else {
			cancel()
		}
		err := await(t, "Shutdown", down)
		s := there.Stats().Push
		if inTime && (err != nil || s.Handled != n) {
			t.Errorf("%d of %d were handled; Shutdown: %v", s.Handled, n, err)
		}
		if want := "unicast: shutdown: 1 received pushes not handled: context canceled"; !inTime && (err == nil || err.Error() != want) {
			t.Errorf("Shutdown: %v, want %s", err, want)
		}
	}
}

// TestShutdownTellsOfLostPushes: also when it was not its context that ended them.
func TestShutdownTellsOfLostPushes(t *testing.T) {
	for name, row := range map[string]struct {
		before func(w *world)
		during func(w *world, kill func())
	}{
		"the connection breaks": {during: func(_ *world, kill func()) { kill() }},
		"the node fails": {during: func(w *world, _ func()) {
			w.change("full", func(p *place) { p.err = errFailed })
		}},
		"the node has left": {
			before: func(w *world) { w.change("full", func(p *place) { p.err = errLeft }) },
			during: func(_ *world, kill func()) { kill() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			peer := newRawPeer(t, greetPull, false)
			w.place("full", peer.url)
			m := w.listen(t, "node1", nil, unicast.Config{})
			fill(t, m, "full", 1<<20)
			if row.before != nil {
				row.before(w)
			}
			down := make(chan error, 1)
			go func() { down <- m.Shutdown(within(t)) }()
			eventually(t, "it is closing", func() bool { return errors.Is(m.Push(within(t), "full", "", nil), unicast.ErrClosed) })
			row.during(w, peer.kill)
			err := await(t, "Shutdown", down)
			l := m.Stats().PushesLost
			lost := l.ConnectionLost + l.NodeGone + l.Closed
			want := fmt.Sprintf("unicast: shutdown: %d pushes (%d bytes) not written: pushes lost", lost, l.Bytes)
			if lost == 0 || lost > m.Stats().Push.OK || !errors.Is(err, unicast.ErrPushesLost) || err.Error() != want {
				t.Errorf("Shutdown: %v; lost: %+v", err, l)
			}
		})
	}
}
