package broadcast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// In a cluster that loses a fifth of the copies and mixes up the rest, everyone
// else gets everything exactly once, after an exchange or two for stragglers.
func TestBestEffortReachesEveryoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.copies, n.loss = 4, 0.2
		var nodes []*fakeNode
		for i := range 12 {
			nodes = append(nodes, n.add(fmt.Sprintf("node%d", i+1), nil, Config{}))
		}
		for _, f := range nodes {
			f.exchange(nodes[0].name) // the first one of their lives
		}
		var all []string
		for i := range 40 {
			body := fmt.Sprintf("hint %02d", i)
			all = append(all, body)
			if err := nodes[i%12].all.BestEffort("news", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		byGossip := 0
		for _, f := range nodes {
			byGossip += len(f.got.bodies())
		}
		if byGossip < 40*11*8/10 {
			t.Errorf("gossip alone made %d of %d deliveries", byGossip, 40*11)
		}
		for range 2 {
			for i, f := range nodes {
				f.exchange(nodes[(i+1)%12].name)
				f.exchange(nodes[(i+5)%12].name)
			}
		}
		synctest.Wait()
		for i, f := range nodes {
			var want []string
			for j, body := range all {
				if j%12 != i { // not its own
					want = append(want, body)
				}
			}
			if got := f.got.bodies(); !slices.Equal(got, want) {
				t.Errorf("%s got %d messages: %q", f.name, len(got), got)
			}
		}
		m := nodes[3].got.last()
		if m.Topic != "news" || m.Reliable || !strings.HasPrefix(m.From, "node") || m.From == "node4" || m.ID == (codec.ID{}) {
			t.Errorf("message %+v", m)
		}
	})
}

func TestBestEffortRefuses(t *testing.T) {
	budget := errors.New("gossip budget spent")
	tests := []struct {
		name   string
		topic  string
		body   []byte
		cfg    Config
		budget error
		closed bool
		check  func(error) bool
	}{
		{name: "body", topic: "t", body: make([]byte, 1025), check: limit("body", 1025, 1024)},
		{name: "configured", topic: "t", body: make([]byte, 101), cfg: Config{MaxGossip: 100}, check: limit("body", 101, 100)},
		{name: "topic", topic: strings.Repeat("t", 256), check: limit("topic", 256, 255)},
		{name: "reserved", topic: "$broadcast", check: is(ErrReservedTopic)},
		{name: "budget", topic: "t", budget: budget, check: is(budget)},
		{name: "closed", topic: "t", closed: true, check: is(ErrClosed, net.ErrClosed)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			a := n.add("a", nil, tt.cfg)
			a.budget = tt.budget
			if tt.closed {
				a.all.Close()
			}
			err := a.all.BestEffort(tt.topic, tt.body)
			if err == nil || !tt.check(err) || !strings.HasPrefix(err.Error(), "broadcast: best effort: ") {
				t.Errorf("error %v", err)
			}
			if tt.budget == nil && a.gossiped != 0 {
				t.Error("gossiped all the same")
			}
			s := a.all.Stats()
			if s.GossipRefused != 1 || s.GossipSent != 0 || s.RecentMessages != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func limit(what string, size, limit int) func(error) bool {
	return func(err error) bool {
		var l *codec.LimitError
		return errors.As(err, &l) && *l == codec.LimitError{What: what, Size: size, Limit: limit}
	}
}

func is(targets ...error) func(error) bool {
	return func(err error) bool {
		return !slices.ContainsFunc(targets, func(target error) bool { return !errors.Is(err, target) })
	}
}

// The largest message that the limits allow goes through, and the caller may
// reuse its buffer at once.
func TestBestEffortLargest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := n.add(strings.Repeat("a", 63), nil, Config{}), n.add("b", nil, Config{})
		body := []byte(strings.Repeat("x", 1024))
		if err := a.all.BestEffort(strings.Repeat("t", 255), body); err != nil {
			t.Fatal(err)
		}
		clear(body)
		synctest.Wait()
		if got := b.got.bodies(); len(got) != 1 || got[0] != strings.Repeat("x", 1024) {
			t.Errorf("got %q", got)
		}
	})
}

// A handler may do with the body what it likes: what the others get does not change.
func TestHandlerOwnsTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.cut = func(a, b string) bool { return a != "b" && b != "b" } // a - b - c
		spoil := HandlerFunc(func(_ context.Context, m Message) error { clear(m.Body); return nil })
		a, c := n.add("a", nil, Config{}), n.add("c", nil, Config{})
		b := n.add("b", spoil, Config{})
		b.exchange("c") // the first one
		_ = a.all.BestEffort("t", []byte("kept"))
		synctest.Wait()
		n.cut = nil
		d := n.add("d", nil, Config{})
		d.fresh = false
		b.exchange("d")
		synctest.Wait()
		for _, f := range []*fakeNode{c, d} {
			if got := f.got.bodies(); !slices.Equal(got, []string{"kept"}) {
				t.Errorf("%s got %q", f.name, got)
			}
		}
	})
}

// A node passes on what it sees for the first time, and only then.
func TestRelayOnFirstSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{})
		b := n.add("b", nil, Config{})
		payload := gossipFrom(t, "x", 7, 1, "hello")
		for range 3 {
			b.post(payload)
		}
		synctest.Wait()
		if b.gossiped != 1 || a.gossiped != 1 {
			t.Errorf("b gossiped %d times, a %d times, want once each", b.gossiped, a.gossiped)
		}
		if s := b.all.Stats(); s.GossipReceived != 1 || s.GossipRelayed != 1 || s.GossipDuplicates != 3 || s.Handled != 1 {
			t.Errorf("stats %+v", s)
		}
		// A relay that the cluster refuses is lost and counted, the message delivered.
		b.mu.Lock()
		b.budget = errors.New("gossip budget spent")
		b.mu.Unlock()
		b.post(gossipFrom(t, "x", 7, 2, "world"))
		synctest.Wait()
		if s := b.all.Stats(); s.RelaysDropped != 1 || s.Handled != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

func gossipFrom(t testing.TB, from string, instance, seq uint64, body string) []byte {
	return encode(t, codec.Envelope{Kind: codec.KindGossip, ID: codec.NewID(instance, seq), From: from, Topic: "t", Body: []byte(body)})
}

func encode(t testing.TB, env codec.Envelope) []byte {
	t.Helper()
	payload, err := env.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// What a node said itself, in this life or an earlier one, is not news to it.
func TestOwnMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{})
		a.post(gossipFrom(t, "a", a.instance, 1, "mine"))
		a.post(gossipFrom(t, "a", a.instance+1, 1, "mine, before I restarted"))
		synctest.Wait()
		if got := a.got.bodies(); got != nil {
			t.Errorf("got %q", got)
		}
		if a.gossiped != 1 { // the others may not have what I said before
			t.Errorf("relayed %d, want 1", a.gossiped)
		}
	})
}

// A member that is cut off catches up by push/pull, and passes on what it learns
// to those that are cut off with it.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b, c := n.add("a", nil, Config{}), n.add("b", nil, Config{}), n.add("c", nil, Config{})
		for _, f := range []*fakeNode{b, c} {
			f.exchange("a")
		}
		n.cut = func(x, y string) bool { return (x == "a") != (y == "a") }
		if err := a.all.BestEffort("t", []byte("while cut")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.cut = func(x, y string) bool { return x == "c" && y == "a" || x == "a" && y == "c" }
		a.exchange("b")
		synctest.Wait()
		for _, f := range []*fakeNode{b, c} {
			if got := f.got.bodies(); !slices.Equal(got, []string{"while cut"}) {
				t.Errorf("%s got %q", f.name, got)
			}
		}
		b.exchange("c")
		a.exchange("b")
		synctest.Wait()
		if s := b.all.Stats(); s.CaughtUp != 1 || s.Handled != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A node that starts, or starts again, is not given what was said before.
func TestFreshNodeSkipsOldNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := n.add("a", nil, Config{}), n.add("b", nil, Config{})
		b.exchange("a")
		if err := a.all.BestEffort("t", []byte("old")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.close()
		b = n.add("b", nil, Config{})
		b.exchange("a")
		b.exchange("a")
		synctest.Wait()
		b.post(gossipCopy(t, a)) // a late copy
		synctest.Wait()
		if got := b.got.bodies(); got != nil {
			t.Errorf("got %q", got)
		}
		if s := b.all.Stats(); s.Skipped != 1 {
			t.Errorf("stats %+v", s)
		}
		if err := a.all.BestEffort("t", []byte("new")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := b.got.bodies(); !slices.Equal(got, []string{"new"}) {
			t.Errorf("got %q", got)
		}
	})
}

// gossipCopy is the latest message that f offers to others.
func gossipCopy(t *testing.T, f *fakeNode) []byte {
	t.Helper()
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	msgs := f.all.recent.msgs
	return msgs[len(msgs)-1].payload
}

// A message is offered for two minutes after it was sent, wherever it went since.
func TestRecentEndsEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := n.add("a", nil, Config{}), n.add("b", nil, Config{})
		a.exchange("b")
		n.cut = func(x, y string) bool { return true }
		if err := a.all.BestEffort("t", []byte("m")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(119 * time.Second)
		n.cut = nil
		a.exchange("b")
		synctest.Wait()
		if s := b.all.Stats(); s.RecentMessages != 1 || s.Handled != 1 {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(time.Second)
		for _, f := range []*fakeNode{a, b} {
			if state := f.all.state(); state != nil {
				t.Errorf("%s still offers %d bytes", f.name, len(state))
			}
			if s := f.all.Stats(); s.RecentMessages != 0 || s.RecentBytes != 0 {
				t.Errorf("%s: stats %+v", f.name, s)
			}
		}
	})
}
