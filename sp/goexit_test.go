package sp_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/parley-mesh/parley/sp"
)

// What a handler has taken is its own also when it ends its goroutine.
func TestTakeAndExit(t *testing.T) {
	taken := make(chan []byte, 4)
	t.Run("Puller", func(t *testing.T) {
		pull := newPuller(t, func(_ context.Context, in sp.Inbound) {
			taken <- in.Take()
			runtime.Goexit()
		}, sp.Config{})
		push := newPusher(t, pull.URL(), sp.Config{})
		for i := range 2 {
			if err := push.Send(within(t, soon), make([]byte, 20000+i)); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := <-taken, <-taken; &a[0] == &b[0] {
			t.Error("two messages in the same memory")
		}
	})
	t.Run("Replier", func(t *testing.T) {
		rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
			taken <- in.Take()
			runtime.Goexit()
			return nil
		}, sp.Config{})
		c := dialRaw(t, rep.URL(), protoReq)
		c.send(append(request(1, string(make([]byte, 20000))), request(2, string(make([]byte, 20001)))...))
		if a, b := <-taken, <-taken; &a[0] == &b[0] {
			t.Error("two messages in the same memory")
		}
	})
}
