package attack

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// Three thousand connect and say nothing. They hold as many places as there are for
// handshakes, for as long as a handshake may last, and those who are connected
// already notice nothing.
func TestMuteConnections(t *testing.T) {
	const places = 128
	for _, tt := range []struct {
		name      string
		addresses int
		most      int // handshakes at once
	}{
		{"from one address", 1, places / 2}, // the other half is for other networks
		{"from thirty addresses", 30, places},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const strangers = 3000
			needFiles(t, strangers+500)
			if tt.addresses > 1 {
				needAddresses(t)
			}
			to := newTarget(t, targetSpec{MaxPending: places, HandshakeTimeout: 2 * time.Second})
			honest := newAsker(t, to)
			before := honest.calm()
			base := to.settle()

			arrived, hangUp := besiege(t, to, strangers, tt.addresses)
			most, goroutines, newcomer := 0, 0, false
			for attacking := true; attacking; {
				select {
				case <-arrived:
					attacking = false
				default:
				}
				r := to.look()
				most, goroutines = max(most, r.Stats.Pending), max(goroutines, r.Goroutines-base.Goroutines)
				if tt.addresses == 1 && !newcomer && most == tt.most && attacking {
					newcomer = true
					needAddresses(t)
					_ = enter(t, to, address(1)).Close()
				}
				time.Sleep(5 * time.Millisecond)
			}
			during := honest.tell("during")
			t.Logf("p99 %.1f times what it was; at most %d handshakes at once, %d goroutines",
				float64(during.P99)/float64(before.P99), most, goroutines)
			if most != tt.most {
				t.Errorf("at most %d handshakes at once, want %d", most, tt.most)
			}
			if goroutines > tt.most+16 {
				t.Errorf("%d goroutines more than before", goroutines)
			}
			if tt.addresses == 1 && !newcomer {
				t.Error("nobody else tried to come in")
			}

			r := to.waitFor("none is left and all are counted", func(st sp.Stats) bool {
				return st.Pending == 0 && st.Refused+st.HandshakeFailed == strangers
			})
			if st := r.Stats; st.Refused == 0 || st.HandshakeFailed < uint64(tt.most) || st.Stall != st.HandshakeFailed {
				t.Errorf("%+v", st)
			}
			to.rarelyLogged(r)
			to.backTo(base) // though the other ends are still open
			hangUp()
			_ = enter(t, to, address(0)).Close()
			honest.tell("after")
		})
	}
}

// besiege makes n connections that say nothing, over some seconds. It closes
// arrived when all are made; hangUp, also called at the end of the test, ends them.
func besiege(t *testing.T, to *target, n, addresses int) (arrived <-chan struct{}, hangUp func()) {
	var (
		mu    sync.Mutex
		conns []net.Conn
		next  atomic.Int64
		wg    sync.WaitGroup
	)
	for range 8 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				c, err := dial(to, address(i%addresses))
				if err != nil {
					t.Errorf("stranger %d: %v", i, err)
					return
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
				time.Sleep(5 * time.Millisecond) // it is their pace
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	hangUp = func() {
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
		conns = nil
	}
	t.Cleanup(hangUp)
	return done, hangUp
}
