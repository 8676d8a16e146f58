package sp_test

import (
	"bytes"
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// A reply does not wait for what comes after its request, whatever that is.
func TestReplyIsNotHeldBack(t *testing.T) {
	for name, last := range map[string][]byte{
		"a request in a circle":            frame(bytes.Repeat([]byte{0, 0, 0, 9}, 9)),
		"a request that gets no reply":     request(2, "hush"),
		"a handler that ends itself":       request(2, "exit"),
		"a request that is too large":      {0, 0, 0, 0, 0, 1, 0, 0},
		"a request without an id":          frame([]byte("abc")),
		"one that hides in the hops' room": request(2, string(make([]byte, 1001))),
	} {
		t.Run(name, func(t *testing.T) {
			rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
				switch string(in.Body) {
				case "hush":
					return nil
				case "exit":
					runtime.Goexit()
				}
				return in.Body
			}, sp.Config{MaxMessage: 1000})
			c := dialRaw(t, rep.URL(), protoReq)
			c.send(append(request(1, "first"), last...))
			_ = c.SetReadDeadline(time.Now().Add(soon / 4))
			if reply, err := c.recv(); err != nil || string(reply) != "\x80\x00\x00\x01first" {
				t.Errorf("%q, %v", reply, err)
			}
		})
	}
}
