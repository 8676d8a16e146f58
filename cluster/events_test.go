package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
)

func TestEventsBeginWithTheCall(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	ctx, cancel := context.WithCancel(context.Background())
	events := n.Events(ctx)
	if err := n.SetTags(map[string]string{"a": "1"}); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Type != EventUpdated || e.Member.Name != "node1" || e.Member.Tags["a"] != "1" || e.Time.IsZero() {
			t.Errorf("event is %+v", e)
		}
		e.Member.Tags["a"] = "mine"
		break
	}
	if m, _ := n.Member("node1"); m.Tags["a"] != "1" {
		t.Error("the event was not a copy")
	}
	n.mu.RLock()
	left := len(n.subscribers)
	n.mu.RUnlock()
	if left != 1 { // logMembers
		t.Errorf("%d subscriptions are left", left)
	}
	unused := n.Events(ctx)
	cancel()
	for range unused {
		t.Error("an event after the end")
	}
	eventually(t, "a subscription that nobody read ends with its context", func() bool {
		n.mu.RLock()
		defer n.mu.RUnlock()
		return len(n.subscribers) == 1
	})
}

func TestEventsLag(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	events := n.Events(context.Background())
	const more = 300
	n.mu.Lock()
	for i := range eventQueue + more {
		n.emit(EventUpdated, Member{Name: fmt.Sprint(i)})
	}
	n.mu.Unlock()
	_ = n.Close() // what is queued is still delivered
	var got []Event
	for e := range events {
		got = append(got, e)
	}
	if len(got) != eventQueue+1 || got[0].Type != EventLagged || got[0].Lost != more {
		t.Fatalf("%d events, the first is %+v", len(got), got[0])
	}
	for i, e := range got[1:] {
		if e.Member.Name != fmt.Sprint(more+i) {
			t.Fatalf("event %d is that of %s", i, e.Member.Name)
		}
	}
	if s := n.Stats(); s.EventsDropped < more {
		t.Errorf("%d dropped events were counted", s.EventsDropped)
	}
	for range n.Events(context.Background()) {
		t.Error("an event of a closed node")
	}
}

// TestEventQueue mixes reading and overrunning.
func TestEventQueue(t *testing.T) {
	s := &subscription{wake: make(chan struct{}, 1)}
	sent, read, lost := 0, 0, 0
	for round := range 20 {
		for range 100 + 137*round {
			s.push(Event{Lost: sent})
			sent++
		}
		for range 61 * round {
			e, ok, _ := s.next()
			if !ok {
				break
			}
			if e.Type == EventLagged {
				lost += e.Lost
				continue
			}
			if e.Lost != read+lost {
				t.Fatalf("round %d: got event %d, want %d", round, e.Lost, read+lost)
			}
			read++
		}
	}
	if lost == 0 || read == 0 || sent != read+lost+s.lost+len(s.ring) {
		t.Errorf("sent %d, read %d, lost %d", sent, read, lost)
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	ctx, cancel := context.WithCancel(testContext(t))
	sets := make(chan map[string]Endpoint)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(sets)
		for set := range nodes[0].Providers(ctx, "mail") {
			select {
			case sets <- set:
			case <-ctx.Done():
			}
		}
	}()
	// until waits for a set; the ones before it are steps on the way.
	until := func(what string, want ...string) {
		t.Helper()
		for set := range sets {
			if slices.Equal(slices.Sorted(maps.Keys(set)), want) {
				return
			}
		}
		t.Fatalf("never saw %s", what)
	}
	if set := <-sets; set == nil || len(set) != 0 {
		t.Errorf("the first set is %v", set)
	}
	for _, n := range nodes {
		if err := n.Advertise("mail", ":1111"); err != nil {
			t.Fatal(err)
		}
	}
	until("both", "node1", "node2")
	if err := nodes[1].Advertise("mail", ":2222"); err != nil {
		t.Fatal(err)
	}
	for set := range sets { // it moved
		if set["node2"].URL == "tcp://127.0.0.1:2222" {
			break
		}
	}
	if err := nodes[0].Withdraw("mail"); err != nil {
		t.Fatal(err)
	}
	until("a withdrawal", "node2")
	old := nodes[1].Instance()
	_ = nodes[1].Close()
	again := start(t, "node2")
	if err := again.Advertise("mail", ":2222"); err != nil {
		t.Fatal(err)
	}
	join(t, again, nodes[0])
	for set := range sets { // same endpoint, but another life
		if e, ok := set["node2"]; ok && e.Instance == again.Instance() && e.Instance != old {
			break
		}
	}
	if err := again.Leave(testContext(t)); err != nil {
		t.Fatal(err)
	}
	until("a leave")
	cancel()
	<-done

	for range nodes[0].Providers(context.Background(), "mail") {
		_ = nodes[0].Close() // ends the loop
	}
	for range nodes[0].Providers(context.Background(), "mail") {
		t.Error("a set of a closed node")
	}
}

// TestEventsAgain: a second loop over the same sequence ends instead of waiting
// for what will never come.
func TestEventsAgain(t *testing.T) {
	t.Parallel()
	n := start(t, "a")
	events := n.Events(testContext(t))
	if err := n.SetTags(map[string]string{"x": "y"}); err != nil {
		t.Fatal(err)
	}
	for range events {
		break
	}
	for e := range events {
		t.Errorf("a second loop got %+v", e)
	}
}
