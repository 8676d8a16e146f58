package sp

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// brokenListener fails to accept until it is mended; then it blocks.
type brokenListener struct {
	broken  atomic.Bool
	accepts atomic.Int64
	conns   chan net.Conn
	closed  chan struct{}
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.accepts.Add(1)
	if l.broken.Load() {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *brokenListener) Close() error   { close(l.closed); return nil }
func (l *brokenListener) Addr() net.Addr { return &net.TCPAddr{} }

func testListener(ln net.Listener, maxPipes, maxPending int) *listener {
	l := newListener("", infoPull)
	l.ln = ln
	l.begin(&settings{
		maxFrame: 100, maxPipes: maxPipes, maxPending: maxPending, maxPerPeer: 2,
		handshakeTimeout: 5 * time.Second, stallTimeout: 10 * time.Second,
		stats: &counters{}, log: newLogger(slog.New(slog.DiscardHandler)),
	})
	return l
}

func TestAcceptSurvivesWithoutSpinning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &brokenListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		ln.broken.Store(true)
		l := testListener(ln, 10, 10)
		l.wg.Go(l.acceptLoop)
		time.Sleep(time.Minute)
		if n := ln.accepts.Load(); n < 60 || n > 80 {
			t.Errorf("%d attempts in a minute", n)
		} else if st := l.set.stats.snapshot(); st.AcceptErrors < 60 {
			t.Errorf("%d attempts, %d counted", n, st.AcceptErrors)
		}
		ln.broken.Store(false)
		time.Sleep(time.Second)
		here, there := net.Pipe()
		ln.conns <- here
		_ = greet(there, infoPush)
		_ = readGreeting(there, infoPush)
		p, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
		_ = there.Close()
		_ = l.Close()
	})
}

func TestHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &brokenListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		l := testListener(ln, 10, 10)
		l.wg.Go(l.acceptLoop)
		here, there := net.Pipe()
		ln.conns <- here
		// A byte each second keeps nothing alive.
		began := time.Now()
		for i := 0; ; i++ {
			b := greeting(infoPush.Self)
			if _, err := there.Write(b[i%greetingSize : i%greetingSize+1]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(began); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("cut off after %v", d)
		}
		synctest.Wait()
		if st := l.set.stats.snapshot(); st.HandshakeFailed != 1 || st.Stall != 1 {
			t.Errorf("%+v", st)
		}
		if pipes, pending := l.counts(); pipes != 0 || pending != 0 {
			t.Errorf("%d pipes, %d pending", pipes, pending)
		}
		_ = l.Close()
	})
}

type addrConn struct {
	net.Conn
	addr net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.addr }

// One network cannot have all the places, and each is sure of a few.
func TestPendingPlacesAreShared(t *testing.T) {
	l := testListener(nil, 1000, 128)
	enter := func(ip string) bool {
		return l.enter(&addrConn{addr: &net.TCPAddr{IP: net.ParseIP(ip)}}) == ""
	}
	count := func(ip string) (n int) {
		for enter(ip) {
			n++
		}
		return n
	}
	if n := count("192.0.2.1"); n != 64 {
		t.Errorf("the first network got %d places", n)
	}
	for _, ip := range []string{"192.0.2.2", "192.0.2.3", "2001:db8:0:1::1"} {
		if n := count(ip); n != 8 {
			t.Errorf("%s got %d places", ip, n)
		}
	}
	if enter("2001:db8:0:1:ffff::2") {
		t.Error("another address of the same /64 got a place")
	}
	if n := count("2001:db8:0:2::1"); n != 8 {
		t.Errorf("another /64 got %d places", n)
	}
	if n := count("::ffff:192.0.2.2"); n != 0 {
		t.Errorf("an IPv4 address in IPv6 dress got %d places", n)
	}
	for i := range byte(4) {
		count(net.IPv4(192, 0, 2, 10+i).String())
	}
	if _, pending := l.counts(); pending != 128 {
		t.Errorf("%d pending", pending)
	}
	if enter("192.0.2.99") {
		t.Error("more than 128 pending")
	}
	// All hang up.
	for conn := range l.pending {
		l.leave(conn, errHungUp)
	}
	if _, pending := l.counts(); pending != 0 || len(l.handshakes.perNet) != 0 {
		t.Errorf("%d pending, %d networks left", pending, len(l.handshakes.perNet))
	}
}

// Connections are shared as handshakes are, and one that ends makes room.
func TestConnectionPlacesAreShared(t *testing.T) {
	l := testListener(nil, 64, 128)
	var pipes []*pipe
	connect := func(ip string) bool {
		here, there := net.Pipe()
		t.Cleanup(func() { _, _ = here.Close(), there.Close() })
		conn := &addrConn{here, &net.TCPAddr{IP: net.ParseIP(ip)}}
		if l.enter(conn) != "" {
			return false
		}
		go func() {
			_ = greet(there, infoPush)
			_ = readGreeting(there, infoPush)
		}()
		p, err := l.shake(conn)
		l.leave(conn, err)
		if err == nil {
			pipes = append(pipes, p)
		}
		return err == nil
	}
	count := func(ip string) (n int) {
		for connect(ip) {
			n++
		}
		return n
	}
	if n := count("192.0.2.1"); n != 32 {
		t.Errorf("the first network got %d places", n)
	}
	for i := range byte(8) {
		if n := count(net.IPv4(192, 0, 2, 10+i).String()); n != 4 {
			t.Errorf("network %d got %d places", i, n)
		}
	}
	if connect("192.0.2.99") {
		t.Error("more than 64 connections")
	}
	_ = pipes[0].Close() // one of the first network's
	if connect("192.0.2.1") {
		t.Error("the network with the most got the place that was free")
	}
	if !connect("192.0.2.99") {
		t.Error("a new network did not get it")
	}
	for _, p := range pipes {
		_ = p.Close()
	}
	if n, _ := l.counts(); n != 0 || len(l.pipes.places.perNet) != 0 {
		t.Errorf("%d connections, %d networks left", n, len(l.pipes.places.perNet))
	}
	// Two that shake hands at once, and one place.
	l = testListener(nil, 1, 128)
	one, two := &addrConn{addr: &net.TCPAddr{}}, &addrConn{addr: &net.TCPAddr{}}
	if l.enter(one) != "" || l.enter(two) != "" {
		t.Error("no place for a handshake")
	}
	from := network(&net.TCPAddr{})
	if refusal := l.pipes.take(from, ""); refusal != "" {
		t.Error(refusal)
	}
	if l.pipes.take(from, "") == "" {
		t.Error("two connections in one place")
	}
}

// Those with a name share the connections by name, be they of one network or of many.
func TestNamedPeersShareConnections(t *testing.T) {
	l := testListener(nil, 64, 128)
	l.set.identify = func(context.Context, ConnInfo) (string, error) { return "", nil }
	from := network(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)})
	for i := range 64 {
		if i == 40 { // of anonymous peers that network has enough
			if l.pipes.take(from, "") == "" {
				t.Error("more than half of the places for nobody of one network")
			}
		}
		if refusal := l.pipes.take(from, strconv.Itoa(i/2)); refusal != "" {
			t.Fatalf("connection %d: %s", i, refusal)
		}
		if i%2 == 1 && l.pipes.take(from, strconv.Itoa(i/2)) == "" {
			t.Errorf("peer %d got a third connection", i/2)
		}
	}
	if l.pipes.take(network(&net.TCPAddr{}), "new") == "" || l.enter(&addrConn{addr: &net.TCPAddr{}}) == "" {
		t.Error("more than 64 connections")
	}
	l.pipes.give(from, "7")
	if refusal := l.pipes.take(from, "7"); refusal != "" {
		t.Error(refusal)
	}
	for i := range 64 {
		l.pipes.give(from, strconv.Itoa(i/2))
	}
	if n, _ := l.counts(); n != 0 || len(l.pipes.perPeer) != 0 || len(l.pipes.places.perNet) != 0 {
		t.Errorf("%d connections, %d peers left", n, len(l.pipes.perPeer))
	}
	if st := l.set.stats.snapshot(); st.OverPerPeer < 31 {
		t.Errorf("%+v", st)
	}
}

func TestListenerCloseWhileServed(t *testing.T) {
	for range 50 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := testListener(ln, 1000, 100)
		l.wg.Go(l.acceptLoop)
		go func() { // mangos' core
			for {
				p, err := l.Accept()
				if err != nil {
					return
				}
				_ = p.Close()
			}
		}()
		for range 5 {
			go func() {
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					return
				}
				b := greeting(infoPush.Self)
				_, _ = c.Write(b[:])
				_ = c.Close()
			}()
		}
		go func() { _ = l.Close() }()
		l.stop()
	}
}
