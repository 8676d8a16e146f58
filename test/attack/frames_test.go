package attack

import (
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// Limits of the targets in this file. What one connection may make a target hold is
// a message and a little.
const (
	limit = 4 << 20
	ahead = 64 << 10
)

// A length over the limit ends the connection before anything is made of it.
func TestTooLongALength(t *testing.T) {
	for _, tt := range []struct {
		name   string
		puller bool
		length uint64
	}{
		{"2^62", true, 1 << 62},
		{"2^64-1", true, 1<<64 - 1},
		{"limit+1", true, limit + 1},
		{"2^62 for a request", false, 1 << 62},
		{"limit+1 for a request", false, limit + 8*4 + 1}, // with the longest header there is
	} {
		t.Run(tt.name, func(t *testing.T) {
			const strangers = 50
			to := newTarget(t, targetSpec{Puller: tt.puller, MaxMessage: limit})
			base := to.settle()
			for range strangers {
				c := enter(t, to, address(0))
				c.send(append(length(tt.length), make([]byte, 100)...))
				if d := c.disconnected(); d > 5*time.Second { // the target's StallTimeout is longer
					t.Errorf("disconnected after %v", d)
				}
			}
			r := to.waitFor("all are gone and counted", func(st sp.Stats) bool { return st.Pipes == 0 && st.TooLarge == strangers })
			if each := (r.Allocated - base.Allocated) / strangers; each > 2*ahead {
				t.Errorf("%d bytes allocated for each", each)
			}
			if st := r.Stats; st.MessagesIn != 0 || st.Stall != 0 {
				t.Errorf("%+v", st)
			}
			to.rarelyLogged(r)
			to.backTo(base)
		})
	}
}

// A length is only a claim, and what follows it, however much, is held once.
func TestLengthWithoutABody(t *testing.T) {
	const strangers = 10
	claim := func(limit, sent int) []byte { return append(length(uint64(limit)), make([]byte, sent)...) }
	for _, tt := range []struct {
		name  string
		limit int
		sent  []byte
		most  int64 // bytes held for each, beside what a connection costs
	}{
		{"half a length", limit, length(limit)[:4], ahead},
		{"no body", limit, claim(limit, 0), 2 * ahead},
		{"a byte", limit, claim(limit, 1), 2 * ahead},
		{"half a body", limit, claim(limit, limit/2), limit + ahead},
		{"all but a byte", limit, claim(limit, limit-1), limit + ahead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			to := newTarget(t, targetSpec{Puller: true, MaxMessage: tt.limit, StallTimeout: 2 * time.Second})
			_ = enter(t, to, address(0)).Close() // what is made once is made now
			to.waitFor("the first is gone", func(st sp.Stats) bool { return st.Accepted == 1 && st.Pipes == 0 })
			base := to.settle()
			began := time.Now()
			var conns []*stranger
			for range strangers {
				c := enter(t, to, address(0))
				c.send(tt.sent)
				conns = append(conns, c)
			}
			held := int64(-1)
			for {
				r := to.settle()
				if r.Stats.Stall > 0 {
					break
				}
				held = (r.Heap - base.Heap) / strangers // at last all has arrived
				if time.Since(began) > soon {
					t.Fatalf("nobody is disconnected: %+v", r.Stats)
				}
			}
			if held < 0 {
				t.Skip("this machine is too slow to look before the first is disconnected")
			}
			t.Logf("%d bytes held for each", held)
			if most := tt.most + 32<<10; held > most { // with what a connection costs
				t.Errorf("%d bytes held for each, want at most %d", held, most)
			}
			for _, c := range conns {
				c.disconnected()
			}
			r := to.waitFor("all are gone and counted", func(st sp.Stats) bool { return st.Pipes == 0 && st.Stall == strangers })
			if r.Stats.MessagesIn != 0 || r.Stats.TooLarge != 0 {
				t.Errorf("%+v", r.Stats)
			}
			to.rarelyLogged(r)
			to.backTo(base)
		})
	}
}

// Whoever drips is cut off like whoever stops.
func TestTrickle(t *testing.T) {
	const timeout = time.Second
	for _, tt := range []struct {
		name  string
		begin []byte // sent at once after the handshake; nil is no handshake
		drip  []byte
		pause time.Duration
	}{
		{"greeting", nil, greeting(protoPush), 500 * time.Millisecond},
		{"length", []byte{}, length(1 << 10), 500 * time.Millisecond},
		{"body", length(1 << 10), make([]byte, 200), 100 * time.Millisecond},
		{"second message", append(frame([]byte("first")), length(1<<10)...), make([]byte, 200), 100 * time.Millisecond},
		{"end of a large body", append(length(1<<20), make([]byte, 1<<20-1<<10)...), make([]byte, 200), 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			to := newTarget(t, targetSpec{Puller: true, StallTimeout: timeout, HandshakeTimeout: timeout})
			honest := enter(t, to, address(0))
			to.waitFor("an honest peer is there", func(st sp.Stats) bool { return st.Pipes == 1 })
			base := to.settle()
			began := time.Now()
			var c *stranger
			if tt.begin == nil {
				c = connect(t, to, address(0))
			} else {
				c = enter(t, to, address(0))
				c.send(tt.begin)
			}
			c.trickle(tt.drip, tt.pause)
			if d := time.Since(began); d < timeout {
				t.Errorf("disconnected after %v, want %v", d, timeout)
			} else {
				t.Logf("disconnected after %v", d)
			}
			r := to.waitFor("it is gone and counted", func(st sp.Stats) bool {
				return st.Pipes == 1 && st.Pending == 0 && st.Stall == 1
			})
			if failed := r.Stats.HandshakeFailed; failed != 0 && tt.begin != nil || failed != 1 && tt.begin == nil {
				t.Errorf("%+v", r.Stats)
			}
			to.rarelyLogged(r)
			to.backTo(base)

			// A silent connection is not a stalled one.
			before := to.look().Stats.MessagesIn
			honest.send(frame([]byte("hello")))
			to.waitFor("the honest peer is heard", func(st sp.Stats) bool { return st.MessagesIn == before+1 })
		})
	}
}
