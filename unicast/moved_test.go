package unicast_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// move makes name found where other is, as another instance or the same.
func (w *world) move(name, other string) {
	w.change(name, func(p *place) { p.services = w.nodes[other].services })
}

// twin starts a node that answers as node2 at another address; see world.move.
func (w *world) twin(t *testing.T, h unicast.Handler) *unicast.Messenger {
	w.node("twin")
	instance := w.nodes["node2"].instance
	return listen(t, renamed{&directory{w: w, name: "twin", instance: instance}}, h, unicast.Config{})
}

func TestMovedWhileConnecting(t *testing.T) {
	w := newWorld()
	peer := newRawPeer(t, "", true)
	w.place("node2", peer.url)
	w.twin(t, echo)
	m := w.listen(t, "node1", nil, unicast.Config{})
	result := make(chan error, 1)
	go func() { result <- m.Send(within(t), "node2", "", nil) }()
	eventually(t, "it connects", func() bool { return peer.accepted.Load() == 1 })
	w.move("node2", "twin")
	if err := await(t, "the call goes to the new address", result); err != nil {
		t.Error(err)
	}
}

func TestMovedWhileWaitingForATurn(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{})
	w.twin(t, echo)
	m := w.listen(t, "node1", nil, unicast.Config{InFlight: 1})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- m.Send(within(t), "node2", "", nil) }()
	await(t, "request arrives", h.arrived)
	go func() { second <- m.Send(within(t), "node2", "", nil) }()
	eventually(t, "the second waits", func() bool { return m.Stats().InFlight == 2 })
	w.move("node2", "twin")
	if err := await(t, "the second goes to the new address", second); err != nil {
		t.Error(err)
	}
	close(h.let)
	if err := await(t, "the first is answered", first); err != nil {
		t.Error(err)
	}
}

// TestPushesDoNotOvertake: what is queued for the old address comes before what
// goes to the new one.
func TestPushesDoNotOvertake(t *testing.T) {
	w := newWorld()
	peer := newRawPeer(t, greetPull, false)
	w.place("node2", peer.url)
	w.twin(t, echo)
	m := w.listen(t, "node1", nil, unicast.Config{})
	fill(t, m, "node2", 1<<20)
	w.move("node2", "twin")
	result := make(chan error, 1)
	go func() { result <- m.Push(within(t), "node2", "", nil) }()
	eventually(t, "it is under way", func() bool { return m.Stats().InFlight == 1 })
	if err := m.Send(within(t), "node2", "", nil); err != nil {
		t.Error(err)
	}
	if s := m.Stats(); s.Dials != 2 {
		t.Errorf("%d dials, want one for the old pushes and one for the request", s.Dials)
	}
	peer.kill()
	if err := await(t, "push", result); err != nil {
		t.Error(err)
	}
}

// TestPushesReachANodeThatLeaves: it may still read what was accepted before.
func TestPushesReachANodeThatLeaves(t *testing.T) {
	w := newWorld()
	h := newBlock()
	there := w.listen(t, "node2", h, unicast.Config{QueueBytes: 1 << 20})
	m := w.listen(t, "node1", nil, unicast.Config{QueueBytes: 1 << 20})
	accepted := fill(t, m, "node2", 256<<10)
	w.change("node2", func(p *place) { p.err = errLeft })
	close(h.let)
	eventually(t, "all are handled", func() bool { return there.Stats().Push.Handled == accepted })
	eventually(t, "the connection is closed", func() bool { return m.Stats().Connections == 0 })
	if s := m.Stats(); s.PushesLost != (unicast.LostPushes{}) {
		t.Errorf("lost: %+v", s.PushesLost)
	}
}

// forgetful gives, once, an old answer.
type forgetful struct {
	*directory
	old atomic.Pointer[codec.Endpoint]
}

func (d *forgetful) Lookup(node, service string) (codec.Endpoint, error) {
	if old := d.old.Swap(nil); old != nil {
		return *old, nil
	}
	return d.directory.Lookup(node, service)
}

// TestOldLook: a caller that looked before a node moved does not harm those who
// looked afterwards.
func TestOldLook(t *testing.T) {
	w := newWorld()
	w.listen(t, "node2", echo, unicast.Config{})
	dir := &forgetful{directory: w.node("node1")}
	m := listen(t, dir, nil, unicast.Config{})
	if err := m.Send(within(t), "node2", "", nil); err != nil {
		t.Fatal(err)
	}
	dir.old.Store(&codec.Endpoint{URL: "tcp://127.0.0.1:1", Instance: 99})
	if err := m.Send(within(t), "node2", "", nil); err != nil {
		t.Error(err)
	}
	if s := m.Stats(); s.Dials != 1 || s.Connections != 1 {
		t.Errorf("%d dials, %d connections; want the one there was", s.Dials, s.Connections)
	}
}

// TestNodeFailsAfterItWithdrew: the calls that it was about to answer end.
func TestNodeFailsAfterItWithdrew(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{InFlight: 1})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- m.Send(within(t), "node2", "", nil) }()
	await(t, "request arrives", h.arrived)
	go func() { second <- m.Send(within(t), "node2", "", nil) }()
	eventually(t, "the second waits for its turn", func() bool { return m.Stats().InFlight == 2 })
	w.change("node2", func(p *place) { clear(p.services) })
	err := await(t, "the second notices that node2 withdrew", second)
	wantFailure(t, err, unicast.NotDelivered, errNoService)
	if len(first) > 0 {
		t.Errorf("the first ended, too: %v", <-first)
	}
	w.change("node2", func(p *place) { p.err = errFailed })
	err = await(t, "the first ends", first)
	if wantFailure(t, err, unicast.Unknown); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("only its deadline ended it: %v", err)
	}
}

// TestPushesKeepTheirOrderOnTheNextConnection: when a connection was given up
// for another node's, while its pushes were still being handled.
func TestPushesKeepTheirOrderOnTheNextConnection(t *testing.T) {
	const n = 10
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{})
	w.listen(t, "node3", echo, unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{MaxConnections: 1})
	push := func(topic string) {
		if err := m.Push(within(t), "node2", topic, nil); err != nil {
			t.Error(err)
		}
	}
	for i := range n {
		push(strconv.Itoa(i))
	}
	eventually(t, "they are written", func() bool { return m.Stats().PushesQueued == 0 })
	if first := await(t, "the first push", h.arrived); first.Topic != "0" {
		t.Fatalf("it is %s", first.Topic)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = m.Send(ctx, "node3", "", nil) // takes the place, be it in time or not
	if n := m.Stats().Evictions; n != 1 {
		t.Fatalf("%d evictions", n)
	}
	last := make(chan struct{})
	go func() {
		defer close(last)
		for errors.Is(m.Push(within(t), "node2", strconv.Itoa(n), nil), unicast.ErrBusy) {
			runtime.Gosched()
		}
	}()
	select {
	case m := <-h.arrived:
		t.Fatalf("push %s overtook the first", m.Topic)
	case <-time.After(100 * time.Millisecond): // time enough to do so
	}
	close(h.let)
	await(t, "the last push is accepted", last)
	for i := 1; i <= n; i++ {
		if m := await(t, "push", h.arrived); m.Topic != strconv.Itoa(i) {
			t.Fatalf("push %d came as %s", i, m.Topic)
		}
	}
	if s := m.Stats(); s.Lost != 0 || s.PushesLost != (unicast.LostPushes{}) {
		t.Errorf("stats: %+v", s)
	}
}
