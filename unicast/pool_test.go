package unicast_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/unicast"
)

func TestCallersShareOneConnection(t *testing.T) {
	w := newWorld()
	there := w.listen(t, "node2", echo, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := errors.Join(m.Send(within(t), "node2", "", nil), m.Push(within(t), "node2", "", nil)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := m.Stats(); s.Dials != 2 || s.Connections != 2 {
		t.Errorf("%d dials, %d connections; want one for requests and one for pushes", s.Dials, s.Connections)
	}
	eventually(t, "the pushes arrive", func() bool { return there.Stats().Push.Handled == 50 })
	if s := there.Stats(); s.RepListener.Accepted != 1 || s.PullListener.Accepted != 1 {
		t.Errorf("%d and %d connections came in", s.RepListener.Accepted, s.PullListener.Accepted)
	}
}

// TestDialIsShared: who gives up does not end the dial for those who wait, and
// the last to give up does.
func TestDialIsShared(t *testing.T) {
	w := newWorld()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.node("mute")
	w.change("mute", func(p *place) { p.services[unicast.ServiceRep] = "tcp://" + l.Addr().String() })
	m := w.listen(t, "node1", nil, unicast.Config{})

	first, giveUp1 := context.WithCancel(t.Context())
	second, giveUp2 := context.WithCancel(t.Context())
	defer giveUp1()
	defer giveUp2()
	results := make(chan error, 2)
	go func() { results <- m.Send(first, "mute", "", nil) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { results <- m.Send(second, "mute", "", nil) }()
	eventually(t, "both wait", func() bool { return m.Stats().InFlight == 2 })
	giveUp1()
	wantFailure(t, await(t, "the first gives up", results), unicast.NotDelivered, context.Canceled)
	if s := m.Stats(); s.Dials != 1 || s.DialFailures != 0 {
		t.Errorf("the dial ended with the first caller, or there were two: %+v", s)
	}
	giveUp2()
	wantFailure(t, await(t, "the second gives up", results), unicast.NotDelivered, context.Canceled)
	conn.SetReadDeadline(time.Now().Add(4 * time.Second)) // the handshake itself may take 5 s
	for buf := make([]byte, 100); ; {
		if _, err := conn.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection is still there")
		} else if err != nil {
			break
		}
	}
	eventually(t, "nobody wants it, and it ends", func() bool { return m.Stats().DialFailures == 1 })
}

func TestNodeThatComesBackIsFound(t *testing.T) {
	for _, same := range []string{"same port", "another port"} {
		t.Run(same, func(t *testing.T) {
			w := newWorld()
			m := w.listen(t, "node1", nil, unicast.Config{})
			ports := unicast.Config{}
			for round := range 3 {
				there := w.listen(t, "node2", on(func(context.Context, unicast.Message) ([]byte, error) {
					return fmt.Append(nil, round), nil
				}), ports)
				reply, err := m.Request(within(t), "node2", "", nil)
				if err != nil || string(reply) != fmt.Sprint(round) {
					t.Fatalf("round %d: %q, %v", round, reply, err)
				}
				if err := m.Push(within(t), "node2", "", nil); err != nil {
					t.Fatal(err)
				}
				eventually(t, "push arrives", func() bool { return there.Stats().Push.Handled == 1 })
				if same == "same port" {
					ports = unicast.Config{RepPort: portOf(w.url("node2", unicast.ServiceRep)), PullPort: portOf(w.url("node2", unicast.ServicePull))}
				}
				there.Close()
			}
			eventually(t, "old connections are closed", func() bool { return m.Stats().Connections == 0 })
		})
	}
}

func portOf(url string) (port int) {
	fmt.Sscanf(url[strings.LastIndex(url, ":")+1:], "%d", &port)
	return port
}

// TestNodeMoves: what was under way when a node moves, leaves or dies.
func TestNodeMoves(t *testing.T) {
	for _, row := range []struct {
		name string
		edit func(w *world, p *place)
		ends bool  // do calls in flight end at once?
		next error // of a call afterwards
	}{
		{"dies", func(_ *world, p *place) { p.err = errFailed }, true, errFailed},
		{"leaves", func(_ *world, p *place) { p.err = errLeft }, false, errLeft},
		{"withdraws", func(_ *world, p *place) { clear(p.services) }, false, errNoService},
		{"is started anew", func(w *world, p *place) {
			p.services, p.instance = w.nodes["other"].services, w.nodes["other"].instance
		}, true, nil},
		{"changes its address", func(w *world, p *place) { p.services = w.nodes["other"].services }, false, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld()
			h := newBlock()
			dir := w.node("node2")
			listen(t, dir, h, unicast.Config{})
			// Where node2 may be found afterwards.
			other := &directory{w: w, name: "other", instance: dir.instance}
			w.node("other")
			m := w.listen(t, "node1", nil, unicast.Config{})
			if strings.Contains(row.name, "anew") {
				other.instance = w.nodes["other"].instance
			}
			listen(t, renamed{other}, echo, unicast.Config{})

			result := make(chan error, 1)
			go func() { result <- m.Send(within(t), "node2", "", nil) }()
			await(t, "request arrives", h.arrived)
			w.change("node2", func(p *place) { row.edit(w, p) })
			if row.ends {
				wantFailure(t, await(t, "the call ends", result), unicast.Unknown)
			}
			err := m.Send(within(t), "node2", "", nil)
			if row.next != nil {
				wantFailure(t, err, unicast.NotDelivered, row.next)
			} else if err != nil {
				t.Errorf("the next call: %v", err)
			}
			if !row.ends {
				close(h.let)
				if err := await(t, "the call is answered", result); err != nil {
					t.Errorf("the call in flight: %v", err)
				}
			}
			eventually(t, "the connection is closed", func() bool {
				s := m.Stats()
				return s.Connections == int(s.Dials)-1 || s.Connections == 0
			})
		})
	}
}

// renamed listens as node2 and advertises as another.
type renamed struct{ *directory }

func (renamed) Name() string { return "node2" }

func TestIdleConnectionsAreClosed(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{IdleTimeout: 20 * time.Millisecond})
	result := make(chan error, 1)
	go func() { result <- m.Send(within(t), "node2", "", nil) }()
	await(t, "request arrives", h.arrived)
	if err := m.Push(within(t), "node2", "", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the idle one is closed", func() bool { return m.Stats().IdleClosed == 1 })
	close(h.let)
	if err := await(t, "reply", result); err != nil {
		t.Errorf("the one in use was closed: %v", err)
	}
	eventually(t, "now it is idle, too", func() bool { return m.Stats().IdleClosed == 2 && m.Stats().Connections == 0 })
	if err := m.Send(within(t), "node2", "", nil); err != nil {
		t.Errorf("and again: %v", err)
	}
	if s := m.Stats(); s.PushesLost != (unicast.LostPushes{}) || s.Lost != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld()
	h := newBlock()
	nodes := []string{"a", "b", "c"}
	for _, name := range nodes {
		w.listen(t, name, on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
			if m.Topic == "hold" {
				return h.Handle(ctx, m)
			}
			return nil, nil
		}), unicast.Config{})
	}
	m := w.listen(t, "node1", nil, unicast.Config{MaxConnections: 2})
	for _, name := range append(nodes, nodes...) {
		if err := m.Send(within(t), name, "", nil); err != nil {
			t.Fatal(err)
		}
		if s := m.Stats(); s.Connections > 2 {
			t.Fatalf("%d connections", s.Connections)
		}
	}
	if s := m.Stats(); s.Evictions != 4 || s.Dials != 6 {
		t.Errorf("%d evictions, %d dials; want the least recently used to go: 4 and 6", s.Evictions, s.Dials)
	}
	// b and c are connected, and a call to each is in flight: no place for a.
	results := make(chan error, 2)
	for _, name := range nodes[1:] {
		go func() { results <- m.Send(within(t), name, "hold", nil) }()
		await(t, "request arrives", h.arrived)
	}
	wantFailure(t, m.Send(within(t), "a", "", nil), unicast.NotDelivered, unicast.ErrBusy)
	close(h.let)
	if err := errors.Join(await(t, "reply", results), await(t, "reply", results)); err != nil {
		t.Error(err)
	}
	if err := m.Send(within(t), "a", "", nil); err != nil {
		t.Errorf("after the others are done: %v", err)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{})
	m := w.listen(t, "node1", h, unicast.Config{InFlight: 2})
	for _, node := range []string{"node2", "node1"} {
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- m.Send(within(t), node, "", nil) }()
			await(t, "request arrives", h.arrived)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		wantFailure(t, m.Send(ctx, node, "", nil), unicast.NotDelivered, unicast.ErrBusy, context.DeadlineExceeded)
		if len(h.arrived) != 0 {
			t.Error("a third was under way")
		}
		waiting := make(chan error, 1)
		go func() { waiting <- m.Send(within(t), node, "", nil) }()
		eventually(t, "it waits", func() bool { return m.Stats().InFlight == 3 })
		h.let <- struct{}{}
		h.let <- struct{}{}
		await(t, "there is room, and it goes", h.arrived)
		h.let <- struct{}{}
		if err := errors.Join(await(t, "reply", results), await(t, "reply", results), await(t, "reply", waiting)); err != nil {
			t.Error(err)
		}
	}
}

// TestPushesLostAreCounted: what was accepted and never written.
func TestPushesLostAreCounted(t *testing.T) {
	for name, end := range map[string]func(w *world, m *unicast.Messenger, kill func()){
		"connection lost": func(_ *world, _ *unicast.Messenger, kill func()) { kill() },
		"node gone": func(w *world, _ *unicast.Messenger, _ func()) {
			w.change("full", func(p *place) { p.err = errFailed })
		},
		"closed": func(_ *world, m *unicast.Messenger, _ func()) { m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			peer := newRawPeer(t, greetPull, false)
			w.place("full", peer.url)
			m := w.listen(t, "node1", nil, unicast.Config{})
			accepted := fill(t, m, "full", 1<<20)
			end(w, m, peer.kill)
			eventually(t, "the loss is counted", func() bool {
				l := m.Stats().PushesLost
				return l.Bytes > 0 && l.ConnectionLost+l.NodeGone+l.Closed >= 1
			})
			l := m.Stats().PushesLost
			for reason, n := range map[string]uint64{"connection lost": l.ConnectionLost, "node gone": l.NodeGone, "closed": l.Closed} {
				if (n > 0) != (reason == name) || n > accepted {
					t.Errorf("%s: %d of %d", reason, n, accepted)
				}
			}
		})
	}
}
