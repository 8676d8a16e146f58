package attack

import (
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// A handshake over TLS has two halves. Whoever stops or drips in either holds a place
// as long as any handshake may last.
func TestMuteConnectionsTLS(t *testing.T) {
	const (
		places    = 64
		strangers = 150
		timeout   = time.Second
	)
	for _, tt := range []struct {
		name string
		does func(*stranger, *target) // until the target ends the connection
	}{
		{"nothing", func(*stranger, *target) {}},
		{"half a ClientHello", func(c *stranger, _ *target) { _, _ = c.Write(clientHello(t)[:150]) }},
		{"no greeting", func(c *stranger, to *target) { _ = c.startTLS(to) }},
		{"half a greeting", func(c *stranger, to *target) {
			if c.startTLS(to) == nil {
				_, _ = c.Write(greeting(protoReq)[:5])
			}
		}},
		{"dripping", func(c *stranger, _ *target) {
			for _, b := range clientHello(t) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond) // it is its pace
			}
			t.Error("all was let in")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := newTarget(t, targetSpec{TLS: true, MaxPending: places, HandshakeTimeout: timeout})
			honest := newAsker(t, to)
			base := to.settle()
			done := make(chan struct{}, strangers)
			for range strangers {
				c := connect(t, to, address(0))
				go func() {
					tt.does(c, to)
					_, _ = io.Copy(io.Discard, c.tcp)
					done <- struct{}{}
				}()
			}
			most := 0
			r := to.waitFor("all are gone and counted", func(st sp.Stats) bool {
				most = max(most, st.Pending)
				return st.Pending == 0 && st.Refused+st.HandshakeFailed == strangers
			})
			if most == 0 || most > places/2 { // the other half is for other networks
				t.Errorf("%d handshakes at once", most)
			}
			if r.Stats.Refused == 0 || r.Stats.Accepted != base.Stats.Accepted || r.Stats.Stall != r.Stats.HandshakeFailed {
				t.Errorf("%+v", r.Stats)
			}
			for range strangers {
				<-done
			}
			honest.tell("during")
			to.rarelyLogged(r)
			to.backTo(base)
			_ = enter(t, to, address(0)).Close()
		})
	}
}

// What is not TLS, or not the TLS or the SP that is wanted, is refused at once.
func TestGarbageGreetingsTLS(t *testing.T) {
	const strangers = 50
	over := func(said []byte) func(*stranger, *target) {
		return func(c *stranger, to *target) {
			if err := c.startTLS(to); err != nil {
				c.t.Error(err)
			}
			_, _ = c.Write(said)
		}
	}
	for _, tt := range []struct {
		name string
		does func(*stranger, *target)
	}{
		{"SP without TLS", func(c *stranger, _ *target) { c.send(greeting(protoReq)) }},
		{"HTTP", func(c *stranger, _ *target) { c.send([]byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")) }},
		{"a record of 64 KiB", func(c *stranger, _ *target) { c.send([]byte("\x16\x03\x01\xff\xff\x01\x00\xff\xfb")) }},
		{"an older TLS", func(c *stranger, _ *target) {
			cfg := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
			if err := tls.Client(c.tcp, cfg).Handshake(); err == nil {
				c.t.Error("TLS 1.2 was good enough")
			}
		}},
		{"HTTP over TLS", over([]byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"))},
		{"another protocol over TLS", over(greeting(protoPush))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := newTarget(t, targetSpec{TLS: true})
			base := to.settle()
			for range strangers {
				c := connect(t, to, address(0))
				tt.does(c, to)
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
			if c := enter(t, to, address(0)); !c.answered(1) {
				t.Error("an honest peer is not answered")
			}
		})
	}
}

// Lengths that lie do so over TLS as well.
func TestLengthsTLS(t *testing.T) {
	const strangers = 10
	to := newTarget(t, targetSpec{TLS: true, Puller: true, MaxMessage: limit, StallTimeout: 2 * time.Second})
	_ = enter(t, to, address(0)).Close()
	to.waitFor("the first is gone", func(st sp.Stats) bool { return st.Accepted == 1 && st.Pipes == 0 })
	base := to.settle()
	for range strangers {
		c := enter(t, to, address(0))
		c.send(length(1 << 62))
		c.disconnected()
	}
	r := to.waitFor("all are gone and counted", func(st sp.Stats) bool { return st.Pipes == 0 && st.TooLarge == strangers })
	to.rarelyLogged(r)

	for range strangers {
		enter(t, to, address(0)).send(length(limit))
	}
	r = to.settle()
	if r.Stats.Stall > 0 {
		t.Skip("this machine is too slow to look before the first is disconnected")
	}
	each := (r.Heap - base.Heap) / strangers
	t.Logf("%d bytes held for each", each)
	if each > 2*ahead+96<<10 { // with what TLS costs
		t.Errorf("%d bytes held for each", each)
	}
	to.waitFor("all are gone and counted", func(st sp.Stats) bool { return st.Pipes == 0 && st.Stall == strangers })
	to.backTo(base)
}

// A handshake that does not end is not kept, however much of it there is.
func TestEndlessHandshakeTLS(t *testing.T) {
	to := newTarget(t, targetSpec{TLS: true})
	base := to.settle()
	const strangers = 20
	record := append([]byte("\x16\x03\x01\x40\x00"), make([]byte, 16<<10)...)
	copy(record[5:], "\x01\xff\xff\xff") // a ClientHello of 16 MiB begins
	for range strangers {
		c := connect(t, to, address(0))
		for i := 0; ; i++ {
			if _, err := c.Write(record); err != nil {
				break
			}
			if i > 1000 {
				t.Fatal("16 MiB of a ClientHello were let in")
			}
		}
		c.disconnected()
	}
	r := to.waitFor("all are gone and counted", func(st sp.Stats) bool { return st.Pending == 0 && st.HandshakeFailed == strangers })
	if each := (r.Allocated - base.Allocated) / strangers; each > 512<<10 {
		t.Errorf("%d bytes allocated for each", each)
	}
	to.backTo(base)
}
