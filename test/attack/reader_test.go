package attack

import (
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// Peers ask for much and read nothing, or a byte now and then. They are cut off, and
// until then hold what the Config lets them, while others are answered.
func TestReaderThatStops(t *testing.T) {
	const (
		strangers = 8
		questions = 200 // of each
		answer    = 1 << 20
		queue     = 4 << 20
		inFlight  = 4
		timeout   = 2 * time.Second
	)
	for _, tt := range []struct {
		name  string
		tls   bool
		pause time.Duration // between the bytes read; 0 reads none
	}{
		{"at once", false, 0},
		{"almost", false, 50 * time.Millisecond},
		{"over TLS", true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := newTarget(t, targetSpec{
				TLS: tt.tls, ReplySize: answer, MaxMessage: answer, QueueBytes: queue, InFlight: inFlight, StallTimeout: timeout,
			})
			honest := newAsker(t, to)
			honest.calm()
			base := to.settle()

			began := time.Now()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			hangUp := sync.OnceFunc(func() {
				close(stop)
				wg.Wait()
			})
			defer hangUp()
			for range strangers {
				c := connect(t, to, address(0))
				_ = c.tcp.SetReadBuffer(4 << 10)
				if err := c.startTLS(to); err != nil {
					t.Fatal(err)
				}
				if err := greet(c, to); err != nil {
					t.Fatal(err)
				}
				for id := range uint32(questions) {
					c.send(request(id, nil))
				}
				wg.Go(func() { c.sip(tt.pause, stop) })
			}
			var held int64
			for to.look().Stats.Stall == 0 {
				if r := to.settle(); r.Stats.Stall == 0 {
					held = r.Heap - base.Heap // at last without what was garbage at once
				}
				if time.Since(began) > soon {
					t.Fatalf("nobody is disconnected: %+v", to.look().Stats)
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Logf("%.1f MiB held for each", float64(held)/strangers/(1<<20))
			if held > strangers*(queue+inFlight*answer+1<<20) {
				t.Errorf("%d bytes held", held)
			}
			r := to.waitFor("all are gone and counted", func(st sp.Stats) bool { return st.Pipes == 1 && st.Stall == strangers })
			if d := time.Since(began); d < timeout {
				t.Errorf("all are gone after %v", d)
			}
			if r.Stats.RepliesLost < strangers {
				t.Errorf("%+v", r.Stats)
			}
			honest.tell("during")
			to.rarelyLogged(r)
			to.backTo(base) // though the other ends are still open
			hangUp()
			honest.tell("after")
		})
	}
}

// sip reads a byte now and then, or none.
func (c *stranger) sip(pause time.Duration, stop <-chan struct{}) {
	if pause == 0 {
		<-stop
		return
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}
