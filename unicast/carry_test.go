package unicast_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/unicast"
)

// tcp is the address of a URL.
func tcp(url string) string { return strings.TrimPrefix(url, "tcp://") }

// topics is a Handler that notes the topics of pushes.
func topics() (h unicast.Handler, came <-chan string) {
	ch := make(chan string, 10000)
	return on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		ch <- m.Topic
		return nil, nil
	}), ch
}

// cutOff is a node1 that has pushed to node2 as much as is accepted, over a proxy to
// a peer that reads none of it.
func cutOff(t *testing.T, w *world, topic func(i int) string) (m *unicast.Messenger, p *proxy, accepted int) {
	peer := newRawPeer(t, greetPull, false)
	p = newProxy(t, tcp(peer.url))
	w.change("node2", func(at *place) { at.services[unicast.ServicePull] = "tcp://" + p.addr })
	m = w.listen(t, "node1", nil, unicast.Config{})
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := m.Push(ctx, "node2", topic(accepted), make([]byte, 256<<10))
		cancel()
		if err != nil {
			wantFailure(t, err, unicast.NotDelivered, unicast.ErrBusy, context.DeadlineExceeded)
			return m, p, accepted
		}
		accepted++
	}
}

// TestPushesGoOnOnTheNextConnection: when theirs breaks, those that were not written
// are sent on, in their order, before later ones, and without waiting for these.
func TestPushesGoOnOnTheNextConnection(t *testing.T) {
	for name, finish := range map[string]func(*testing.T, *unicast.Messenger){
		"by itself":     func(*testing.T, *unicast.Messenger) {},
		"before others": func(t *testing.T, m *unicast.Messenger) { mustPush(t, m, "last") },
		"before the end": func(t *testing.T, m *unicast.Messenger) {
			if err := m.Shutdown(within(t)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			h, came := topics()
			there := w.listen(t, "node2", h, unicast.Config{})
			pull := tcp(w.url("node2", unicast.ServicePull))
			m, p, accepted := cutOff(t, w, strconv.Itoa)
			queued := m.Stats().PushesQueued
			p.lead(pull)
			p.kill()
			finish(t, m)
			// What was written when the connection broke, nobody got.
			first, _ := strconv.Atoi(await(t, "a push", came))
			if n := accepted - first; n < queued-1 || n > queued+1 {
				t.Errorf("the first that came was %d of %d, %d had not been written", first, accepted, queued)
			}
			for i := first + 1; i < accepted; i++ {
				if topic := await(t, "another push", came); topic != strconv.Itoa(i) {
					t.Fatalf("push %d came as %s", i, topic)
				}
			}
			if name == "before others" {
				if topic := await(t, "the last push", came); topic != "last" {
					t.Errorf("%s came last", topic)
				}
			}
			s := m.Stats()
			if s.PushesLost != (unicast.LostPushes{}) || s.Push.OK < uint64(accepted) {
				t.Errorf("stats: %+v", s)
			}
			if there.Stats().Push.Duplicates != 0 || len(came) != 0 {
				t.Errorf("%d more came", len(came))
			}
			eventually(t, "none is queued any more", func() bool { return m.Stats().PushesQueued == 0 })
		})
	}
}

func mustPush(t *testing.T, m *unicast.Messenger, topic string) {
	t.Helper()
	if err := m.Push(within(t), "node2", topic, nil); err != nil {
		t.Error(err)
	}
}

// TestPushesThatCannotGoOn are given up, counted and said to be lost: when there is
// no other connection, when the node is gone, and when it was started anew.
func TestPushesThatCannotGoOn(t *testing.T) {
	for name, row := range map[string]struct {
		during func(w *world)
		gone   bool
	}{
		"no connection": {func(*world) {}, false},
		"gone":          {func(w *world) { w.change("node2", func(p *place) { p.err = errLeft }) }, true},
		"started anew": {func(w *world) {
			w.change("node2", func(p *place) { p.instance += 100 })
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.node("node2")
			m, p, _ := cutOff(t, w, func(int) string { return "" })
			queued := m.Stats().PushesQueued
			closed, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			closed.Close()
			// The way there ends in the middle, and on it at the beginning.
			w.change("node2", func(at *place) {
				at.services[unicast.ServicePull] = "tcp://" + closed.Addr().String()
			})
			p.kill()
			eventually(t, "the break is noticed", func() bool { return m.Stats().Lost == 1 })
			if !row.gone {
				wantFailure(t, m.Push(within(t), "node2", "", nil), unicast.NotDelivered)
				if n := m.Stats().PushesQueued; n < queued-1 {
					t.Errorf("%d of %d are still queued", n, queued)
				}
			}
			row.during(w)
			eventually(t, "they are lost", func() bool { return m.Stats().PushesLost.Bytes > 0 })
			s := m.Stats()
			lost := s.PushesLost.ConnectionLost
			if row.gone {
				lost = s.PushesLost.NodeGone
			}
			if sum := s.PushesLost.ConnectionLost + s.PushesLost.NodeGone + s.PushesLost.Closed; lost != sum ||
				int(lost) < queued-1 || s.PushesQueued != 0 {
				t.Errorf("of %d: %+v", queued, s)
			}
			if err := m.Shutdown(within(t)); err != nil {
				t.Errorf("nothing was left or lost meanwhile: %v", err)
			}
		})
	}
}

// TestPushesSurviveBreaks cuts connections at random moments: pushes may be lost, but
// none comes twice, and those that come after the last break come in their order.
func TestPushesSurviveBreaks(t *testing.T) {
	const n, calm = 20000, 19000
	w := newWorld()
	var mu sync.Mutex
	times := make(map[uint32]int)
	var got []uint32
	there := w.listen(t, "node2", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		i := binary.BigEndian.Uint32(m.Body)
		if times[i]++; i >= calm {
			got = append(got, i)
		}
		return nil, nil
	}), unicast.Config{})
	p := newProxy(t, tcp(w.url("node2", unicast.ServicePull)))
	w.change("node2", func(at *place) { at.services[unicast.ServicePull] = "tcp://" + p.addr })
	m := w.listen(t, "node1", nil, unicast.Config{})
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
				p.kill()
			}
		}
	})
	for i := range uint32(n) {
		if i == calm {
			close(stop)
			killer.Wait()
			if err := m.Push(within(t), "node2", "", binary.BigEndian.AppendUint32(nil, 0)); err != nil {
				t.Error(err)
			}
		}
		body := binary.BigEndian.AppendUint32(make([]byte, 0, 1000), i+1)
		for m.Push(within(t), "node2", "", body[:cap(body)]) != nil {
			// It was between two connections.
		}
	}
	if err := m.Shutdown(within(t)); err != nil && !errors.Is(err, unicast.ErrPushesLost) {
		t.Error(err)
	}
	eventually(t, "the last comes", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return times[n] == 1
	})
	mu.Lock()
	defer mu.Unlock()
	for i, times := range times {
		if times > 1 {
			t.Errorf("push %d came %d times", i, times)
		}
	}
	if !slices.IsSorted(got) {
		t.Errorf("out of order: %d", got)
	}
	s := m.Stats()
	t.Logf("%d of %d came over %d connections, lost %+v", len(times), n+1, s.Dials, s.PushesLost)
	if there.Stats().Push.Duplicates > 0 {
		t.Error("something was sent twice")
	}
}

// TestIdempotent: what may be handled twice is sent again when its connection is
// lost; what may not is not.
func TestIdempotent(t *testing.T) {
	for _, row := range []struct {
		name    string
		options []unicast.CallOption
		breaks  int // that many times
		then    error
		calls   int // of the handler
		resent  uint64
	}{
		{name: "not idempotent", breaks: 1, calls: 1},
		{name: "idempotent", options: []unicast.CallOption{unicast.Idempotent}, breaks: 2, calls: 3, resent: 2},
		{name: "without end", options: []unicast.CallOption{unicast.Idempotent}, breaks: 9, calls: 3, resent: 2},
		{name: "refused then", options: []unicast.CallOption{unicast.Idempotent}, breaks: 1, then: unicast.ErrNoListener, calls: 2, resent: 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld()
			var p *proxy
			ids := make(map[codec.ID]bool)
			calls := make(chan int, 1)
			calls <- 0
			w.listen(t, "node2", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
				n := <-calls + 1
				defer func() { calls <- n }()
				ids[m.ID] = true
				if n <= row.breaks {
					p.kill()
				}
				return []byte("done"), row.then
			}), unicast.Config{})
			p = newProxy(t, tcp(w.url("node2", unicast.ServiceRep)))
			w.change("node2", func(at *place) { at.services[unicast.ServiceRep] = "tcp://" + p.addr })
			m := w.listen(t, "node1", nil, unicast.Config{})
			reply, err := m.Request(within(t), "node2", "", nil, row.options...)
			switch {
			case row.then != nil: // it may have been handled before
				wantFailure(t, err, unicast.Unknown, row.then)
			case row.breaks >= row.calls:
				wantFailure(t, err, unicast.Unknown, sp.ErrConnectionLost)
			case err != nil || string(reply) != "done":
				t.Errorf("%q, %v", reply, err)
			}
			if n := <-calls; n != row.calls || len(ids) != n {
				t.Errorf("the handler was called %d times, with %d ids; want %d", n, len(ids), row.calls)
			}
			if s := m.Stats().Request; s.Resent != row.resent || s.Sent != 1 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}
