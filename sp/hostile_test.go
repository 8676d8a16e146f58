package sp_test

import (
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// A thousand connections come and go; nothing of them stays.
func TestThousandConnectionsLeaveNothing(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	pull := newPuller(t, func(context.Context, sp.Inbound) {}, sp.Config{})
	use := func() {
		req, err := sp.DialRequester(within(t, soon), rep.URL(), quiet(sp.Config{}))
		if err != nil {
			t.Error(err)
			return
		}
		push, err := sp.DialPusher(within(t, soon), pull.URL(), quiet(sp.Config{}))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := req.Request(within(t, soon), []byte("x")); err != nil {
			t.Error(err)
		}
		if err := push.Send(within(t, soon), []byte("x")); err != nil {
			t.Error(err)
		}
		_ = req.Close()
		_ = push.Close()
	}
	use()
	settled := func() bool { return rep.Stats().Pipes == 0 && pull.Stats().Pipes == 0 }
	eventually(t, "the first has gone", settled)
	runtime.GC()
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 125 {
				use()
			}
		})
	}
	wg.Wait()
	eventually(t, "all have gone", settled)
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "the files are closed", func() bool { return openFiles(t) <= files })
}

// Bytes of a stranger in the handshake harm nobody and leave nothing.
func TestHandshakeGarbage(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	inputs := []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01", "", "\x00SP", "\x00SP\x00\x00\x50\x00\x00", strings.Repeat("\xff", 10000)}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := make([]byte, 8+r.IntN(20))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		inputs = append(inputs, string(b))
	}
	for _, in := range inputs {
		c := dialTCP(t, rep.URL())
		_, _ = c.Write([]byte(in))
		if len(in) < 8 {
			_ = c.Close() // hangs up
			continue
		}
		_ = (&rawConn{c, t}).ended() // is cut off
	}
	eventually(t, "all are counted", func() bool {
		st := rep.Stats()
		return st.HandshakeFailed == uint64(len(inputs)) && st.Pending == 0 && st.Pipes == 1
	})
	if _, err := req.Request(within(t, soon), nil); err != nil {
		t.Error(err)
	}
}

// Mute strangers hold a bounded number of places for a bounded time; those who are
// connected notice nothing.
func TestMuteStrangers(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{MaxPending: 16, HandshakeTimeout: 500 * time.Millisecond})
	req := newRequester(t, rep.URL(), sp.Config{})
	base := runtime.NumGoroutine()
	for range 200 {
		dialTCP(t, rep.URL())
		if st := rep.Stats(); st.Pending > 8 { // half, for one network
			t.Fatalf("%+v", st)
		}
	}
	if n := runtime.NumGoroutine() - base; n > 16 {
		t.Errorf("%d goroutines for mute strangers", n)
	}
	if _, err := req.Request(within(t, soon), nil); err != nil {
		t.Error(err)
	}
	eventually(t, "all are counted and gone", func() bool {
		st := rep.Stats()
		return st.Pending == 0 && st.Refused > 0 && st.Refused+st.HandshakeFailed == 200 && st.Stall == st.HandshakeFailed
	})
	newRequester(t, rep.URL(), sp.Config{}) // there is room again
}

// A crowd of honest peers behind one address is let in, though more than the sure
// places shake hands at once.
func TestHonestCrowd(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			req, err := sp.DialRequester(within(t, soon), rep.URL(), quiet(sp.Config{}))
			if err != nil {
				t.Error(err)
				return
			}
			_ = req.Close()
		})
	}
	wg.Wait()
	eventually(t, "all were let in", func() bool { return rep.Stats().Accepted == 60 })
}

func TestMaxPipes(t *testing.T) {
	log, text := logged()
	rep := newReplier(t, echo, sp.Config{MaxPipes: 5, Logger: log})
	var reqs []*sp.Requester
	for range 3 { // half, for one network
		reqs = append(reqs, newRequester(t, rep.URL(), sp.Config{}))
	}
	eventually(t, "three are in", func() bool { return rep.Stats().Pipes == 3 })
	if req, err := sp.DialRequester(within(t, soon), rep.URL(), quiet(sp.Config{})); err == nil {
		wait(t, "the fourth is closed", req.Done())
		_ = req.Close()
	}
	eventually(t, "counted", func() bool { return rep.Stats().Refused == 1 })
	eventually(t, "logged", func() bool { return strings.Contains(text(), "too many connections from one network") })
	_ = reqs[0].Close()
	eventually(t, "one left", func() bool { return rep.Stats().Pipes == 2 })
	req := newRequester(t, rep.URL(), sp.Config{})
	if _, err := req.Request(within(t, soon), nil); err != nil {
		t.Error(err)
	}
}

// A peer that announces a message and does not finish it is cut off, however slowly
// it drips; a silent one that announced nothing is left alone.
func TestStalledMessage(t *testing.T) {
	for name, begin := range map[string][]byte{
		"in the length": {0, 0, 0},
		"no body":       {0, 0, 0, 0, 0, 0, 1, 0},
		"half a body":   append([]byte{0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 100)...),
	} {
		t.Run(name, func(t *testing.T) {
			pull := newPuller(t, func(context.Context, sp.Inbound) {}, sp.Config{StallTimeout: 200 * time.Millisecond})
			silent := dialRaw(t, pull.URL(), protoPush)
			c := dialRaw(t, pull.URL(), protoPush)
			c.send(begin)
			_ = c.ended()
			eventually(t, "counted", func() bool { st := pull.Stats(); return st.Stall == 1 && st.Pipes == 1 })
			silent.send(frame([]byte("hello")))
			eventually(t, "the silent one may speak", func() bool { return pull.Stats().MessagesIn == 1 })
		})
	}
}

// Connecting again and again does not make room for more than the places allow.
func TestReconnectingDoesNotPileUp(t *testing.T) {
	release := make(chan struct{})
	pull := newPuller(t, func(context.Context, sp.Inbound) { <-release }, sp.Config{MaxPipes: 10})
	for range 5 {
		c := dialRaw(t, pull.URL(), protoPush)
		in := pull.Stats().MessagesIn
		c.send(frame(make([]byte, 1000)))
		eventually(t, "received", func() bool { return pull.Stats().MessagesIn > in })
		_ = c.Close()
	}
	c := dialTCP(t, pull.URL())
	_, _ = c.Write(greeting(protoPush))
	_ = (&rawConn{c, t}).ended()
	if st := pull.Stats(); st.Pipes != 5 || st.Handling != 5 || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
	close(release)
	eventually(t, "all is over", func() bool { return pull.Stats().Pipes == 0 })
}

// Listeners open and close while strangers of all kinds come; mangos' core must
// not be caught in the middle.
func TestCloseDuringArrivals(t *testing.T) {
	for range 30 {
		rep, err := sp.ListenReplier(anyPort, echo, quiet(sp.Config{}))
		if err != nil {
			t.Fatal(err)
		}
		addr := strings.TrimPrefix(rep.URL(), "tcp://")
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				for {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						return
					}
					if i%3 > 0 {
						_, _ = c.Write(greeting(protoReq))
					}
					if i%3 > 1 {
						_, _ = c.Write(request(1, "x"))
					}
					_ = c.Close()
				}
			})
		}
		eventually(t, "some arrived", func() bool { return rep.Stats().Accepted > 3 })
		_ = rep.Close()
		wg.Wait()
	}
}
