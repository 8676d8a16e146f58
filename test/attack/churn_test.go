package attack

import (
	"sync"
	"testing"

	"github.com/parley-mesh/parley/sp"
)

// A thousand come and go, each in its own way; nothing of them stays.
func TestComeAndGo(t *testing.T) {
	for _, tt := range []struct {
		name      string
		tls       bool
		strangers int
	}{
		{"plain", false, 1000},
		{"TLS", true, 500},
	} {
		t.Run(tt.name, func(t *testing.T) { comeAndGo(t, tt.tls, tt.strangers) })
	}
}

func comeAndGo(t *testing.T, tls bool, strangers int) {
	const workers = 4
	ways := []func(*testing.T, *target){
		func(t *testing.T, to *target) { _ = connect(t, to, address(0)).Close() },
		func(t *testing.T, to *target) { connect(t, to, address(0)).reset() },
		func(t *testing.T, to *target) { _ = enter(t, to, address(0)).Close() },
		func(t *testing.T, to *target) { enter(t, to, address(0)).reset() },
		func(t *testing.T, to *target) { // asks and is answered
			c := enter(t, to, address(0))
			if !c.answered(1) {
				t.Error("not answered")
			}
			_ = c.Close()
		},
		func(t *testing.T, to *target) { // asks and does not wait
			c := enter(t, to, address(0))
			c.send(request(1, make([]byte, 10<<10)))
			c.reset()
		},
		func(t *testing.T, to *target) { // resets in the middle of a length
			c := enter(t, to, address(0))
			c.send(length(100)[:5])
			c.reset()
		},
		func(t *testing.T, to *target) { // resets in the middle of a body
			c := enter(t, to, address(0))
			c.send(append(request(1, nil), append(length(500<<10), make([]byte, 200<<10)...)...))
			c.reset()
		},
		func(t *testing.T, to *target) { // ends in good order in the middle of a body
			c := enter(t, to, address(0))
			c.send(append(length(100), 1, 2, 3))
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.disconnected()
			_ = c.Close()
		},
		func(t *testing.T, to *target) { // half a greeting
			c := connect(t, to, address(0))
			c.send(greeting(protoReq)[:4])
			_ = c.Close()
		},
		func(t *testing.T, to *target) { // half of what TLS begins with
			c := connect(t, to, address(0))
			c.send(clientHello(t)[:100])
			c.reset()
		},
	}
	to := newTarget(t, targetSpec{TLS: tls})
	honest := newAsker(t, to)
	for _, way := range ways {
		way(t, to)
	}
	to.waitFor("the first are gone", func(st sp.Stats) bool { return st.Pipes == 1 && st.Pending == 0 })
	honest.calm()
	base := to.settle()

	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < strangers && !t.Failed(); i += workers {
				ways[i%len(ways)](t, to)
			}
		})
	}
	wg.Wait()
	to.backTo(base)
	honest.tell("during")
	st := to.look().Stats
	if st.Refused != 0 {
		t.Errorf("%d of them were refused", st.Refused)
	}
	if st.TooLarge+st.Malformed+st.Stall != 0 {
		t.Errorf("%+v", st)
	}
}
