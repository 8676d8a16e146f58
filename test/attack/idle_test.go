package attack

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// What an idle connection that has carried a message costs a listener.
func TestIdleConnections(t *testing.T) {
	const strangers, addresses = 10000, 20
	needFiles(t, strangers+500)
	needAddresses(t)
	for _, tt := range []struct {
		name   string
		puller bool
	}{
		{"replier", false},
		{"puller", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := newTarget(t, targetSpec{Puller: tt.puller, MaxPipes: 2 * strangers, MaxPending: 2 * strangers})
			base := to.settle()
			began := time.Now()
			conns := make([]net.Conn, strangers)
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					for i := w; i < strangers && !t.Failed(); i += 4 {
						c, err := dial(to, address(i%addresses))
						if err != nil {
							t.Error(err)
							return
						}
						conns[i] = c
						if err := greet(c, to); err != nil {
							t.Error(err)
							return
						}
						s := &stranger{c, c.(*net.TCPConn), t}
						switch {
						case tt.puller:
							s.send(frame([]byte("hello")))
						case !s.answered(1):
							t.Error("not answered")
						}
					}
				})
			}
			wg.Wait()
			t.Cleanup(func() {
				for _, c := range conns {
					if c != nil {
						_ = c.Close()
					}
				}
			})
			if t.Failed() {
				return
			}
			to.waitFor("all are in", func(st sp.Stats) bool {
				return st.Pipes == strangers && st.Handling == 0 && st.MessagesIn == strangers
			})
			r := to.settle()
			heap, stack := (r.Heap-base.Heap)/strangers, (r.Stack-base.Stack)/strangers
			t.Logf("%d connections in %v; each: heap %d bytes, stack %d bytes, RSS %d bytes, %.1f goroutines", strangers,
				time.Since(began).Round(time.Millisecond), heap, stack, (r.RSS-base.RSS)/strangers,
				float64(r.Goroutines-base.Goroutines)/strangers)
			if heap+stack > 64<<10 {
				t.Errorf("%d bytes for an idle connection", heap+stack)
			}
			before := to.look()
			time.Sleep(time.Second) // the measurement's length
			r = to.look()
			t.Logf("%v of CPU time in %v", r.CPU-before.CPU, r.Age-before.Age)
		})
	}
}
