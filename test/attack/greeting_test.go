package attack

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// What does not begin as an SP peer of the right protocol is refused at once, is
// counted, and cannot fill the log.
func TestGarbageGreetings(t *testing.T) {
	for _, tt := range []struct{ name, greeting string }{
		{"zeroes", strings.Repeat("\x00", 8)},
		{"noise", strings.Repeat("\xff\x00\x13", 4000)},
		{"HTTP", "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"},
		{"TLS", string(clientHello(t))},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n"},
		{"another version", "\x00SP\x01\x00\x30\x00\x00"},
		{"another protocol", string(greeting(protoPush))},
		{"our own protocol", string(greeting(protoReq + 1))},
		{"reserved bits", "\x00SP\x00\x00\x30\x00\x01"},
		{"a length first", string(length(8)) + string(greeting(protoReq))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const strangers = 100
			to := newTarget(t, targetSpec{})
			base := to.settle()
			for range strangers {
				c := connect(t, to, address(0))
				_, _ = io.WriteString(c, tt.greeting)         // it may be cut off in the middle of it
				if d := c.disconnected(); d > 4*time.Second { // the target's HandshakeTimeout is longer
					t.Errorf("disconnected after %v", d)
				}
			}
			r := to.waitFor("all are gone and counted", func(st sp.Stats) bool {
				return st.Pending == 0 && st.HandshakeFailed == strangers
			})
			if st := r.Stats; st.Accepted != 0 || st.MessagesIn != 0 || st.Stall != 0 {
				t.Errorf("%+v", st)
			}
			to.rarelyLogged(r)
			to.backTo(base)
			c := enter(t, to, address(0))
			c.send(request(1, []byte("hello")))
			to.waitFor("an honest peer is let in", func(st sp.Stats) bool { return st.MessagesOut == 1 })
		})
	}
}

// clientHello is how a TLS client begins.
func clientHello(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer there.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(here, &tls.Config{ServerName: "example.org"}).Handshake()
		_ = here.Close()
	}()
	b := make([]byte, 16<<10)
	_ = there.SetReadDeadline(time.Now().Add(soon))
	n, err := there.Read(b)
	_ = there.Close()
	<-done
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || n < 16 {
		t.Fatalf("no ClientHello: %d bytes, %v", n, err)
	}
	return b[:n]
}
