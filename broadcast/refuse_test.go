package broadcast

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// What cannot be read is refused and counted.
func TestMalformed(t *testing.T) {
	good := codec.Envelope{Kind: codec.KindGossip, ID: codec.NewID(7, 1), From: "x", Topic: "t", Body: []byte("b")}
	with := func(change func(*codec.Envelope)) []byte {
		env := good
		change(&env)
		return encode(t, env)
	}
	tests := map[string][]byte{
		"empty":          {},
		"noise":          []byte("GET / HTTP/1.1"),
		"trailing":       append(with(func(*codec.Envelope) {}), 0),
		"body too large": with(func(e *codec.Envelope) { e.Body = make([]byte, 1025) }),
		"broadcast too large": with(func(e *codec.Envelope) {
			e.Kind, e.Body = codec.KindBroadcast, make([]byte, DefaultMaxMessage+1)
		}),
		"reserved topic": with(func(e *codec.Envelope) { e.Topic = "$sys" }),
		"for one node":   with(func(e *codec.Envelope) { e.To = "a" }),
		"with deadline":  with(func(e *codec.Envelope) { e.Timeout = time.Second }),
		"instance":       with(func(e *codec.Envelope) { e.ToInstance = 3 }),
		"a request":      with(func(e *codec.Envelope) { e.Kind, e.To = codec.KindRequest, "a" }),
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				a := n.add("a", nil, Config{})
				a.post(payload)
				synctest.Wait()
				if s := a.all.Stats(); s.Malformed != 1 || s.Handled != 0 || s.GossipReceived != 0 || s.ReliableReceived != 0 {
					t.Errorf("stats %+v", s)
				}
				if a.gossiped != 0 {
					t.Error("relayed")
				}
			})
		})
	}
	t.Run("state", func(t *testing.T) {
		a := newNetwork(t).add("a", nil, Config{})
		a.mergeFrom(nil)
		a.mergeFrom([]byte{9})
		if s := a.all.Stats(); s.Malformed != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A node with a mailbox takes reliable broadcasts from there, and from nowhere else:
// nobody gets an answer to what came by gossip.
func TestReliableByGossip(t *testing.T) {
	for _, mailbox := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newNetwork(t).member("a")
			f.mailbox = mailbox // without one, the Sender takes the reservation all the same
			f.open(f.got, Config{})
			f.post(broadcastFrom(t, "x", 7, 1, "b"))
			synctest.Wait()
			var malformed, handled uint64 = 0, 1
			if mailbox {
				malformed, handled = 1, 0
			}
			if s := f.all.Stats(); s.Malformed != malformed || s.Handled != handled || s.ReliableReceived != handled {
				t.Errorf("mailbox %v: stats %+v", mailbox, s)
			}
		})
	}
}

// A handler that does not keep up costs best-effort messages, counted, and
// nothing else.
func TestGossipOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		release := make(chan struct{})
		a := n.add("a", HandlerFunc(func(context.Context, Message) error { <-release; return nil }), Config{})
		const sent = maxQueued + 10 // one of them is with the handler
		a.post(gossipFrom(t, "x", 7, 1, "first"))
		synctest.Wait()
		for i := range sent - 1 {
			a.post(gossipFrom(t, "x", 7, uint64(i+2), "m"))
		}
		synctest.Wait()
		s := a.all.Stats()
		if s.QueueMessages != maxQueued || s.Dropped != sent-1-maxQueued || s.GossipRelayed != sent {
			t.Errorf("stats %+v", s)
		}
		close(release)
		synctest.Wait()
		if s := a.all.Stats(); s.QueueMessages != 0 || s.QueueBytes != 0 || s.Handled != maxQueued+1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A Broadcaster without a handler relays and keeps for others.
func TestNilHandlerRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.cut = func(a, b string) bool { return a != "b" && b != "b" }
		a, c := n.add("a", nil, Config{}), n.add("c", nil, Config{})
		b := n.member("b")
		b.open(nil, Config{})
		if err := a.all.BestEffort("t", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := c.got.bodies(); !slices.Equal(got, []string{"hello"}) {
			t.Errorf("c got %q", got)
		}
		if s := b.all.Stats(); s.RecentMessages != 1 || s.Dropped != 0 || s.Handled != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}
