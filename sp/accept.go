package sp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// listener accepts connections and shakes hands with them beside the accept loop,
// so that a mute peer holds up nobody. All its goroutines are in wg and end with
// Close.
type listener struct {
	hostport string
	info     mangos.ProtocolInfo
	set      *settings

	ln     net.Listener
	ready  chan *pipe    // greeted, for mangos' core
	closed chan struct{} // by Close
	served chan struct{} // when the core has gone from Accept for good
	wg     sync.WaitGroup

	mu       sync.Mutex
	isClosed bool
	pending  map[net.Conn]netip.Prefix // in the handshake
	perNet   map[netip.Prefix]int      // the same, counted
	pipes    int
}

func newListener(hostport string, info mangos.ProtocolInfo) *listener {
	return &listener{
		hostport: hostport, info: info,
		ready: make(chan *pipe), closed: make(chan struct{}), served: make(chan struct{}),
		pending: make(map[net.Conn]netip.Prefix), perNet: make(map[netip.Prefix]int),
	}
}

func (l *listener) Listen() error {
	if l.set == nil {
		return errForeign
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	ln, err := lc.Listen(context.Background(), "tcp", l.hostport)
	if err != nil {
		return plain(err)
	}
	l.ln = ln
	l.wg.Go(l.acceptLoop)
	return nil
}

// acceptLoop lives until Close. An error of accept (no file descriptors left, say)
// may last: it backs off, up to a second, and goes on.
func (l *listener) acceptLoop() {
	const shortest, longest = 5 * time.Millisecond, time.Second
	wait := shortest
	for {
		conn, err := l.ln.Accept()
		switch {
		case err == nil:
			wait = shortest
			l.greet(conn)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		l.set.log.error("sp: cannot accept connections", "addr", l.Address(), "err", plain(err), "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.closed:
			timer.Stop()
			return
		}
		wait = min(2*wait, longest)
	}
}

// greet gives conn a place and shakes hands with it, or closes it.
func (l *listener) greet(conn net.Conn) {
	if reason := l.enter(conn); reason != "" {
		l.set.stats.refused.Add(1)
		l.set.log.warn("sp: connection refused", "peer", conn.RemoteAddr(), "reason", reason)
		_ = conn.Close()
		return
	}
	l.wg.Go(func() {
		_ = conn.SetDeadline(time.Now().Add(l.set.handshakeTimeout))
		err := handshake(conn, l.info)
		_ = conn.SetDeadline(time.Time{})
		p, err := l.leave(conn, err)
		if err != nil {
			_ = conn.Close()
			return
		}
		select {
		case l.ready <- p:
		case <-l.closed:
			_ = p.Close()
		}
	})
}

// enter takes a place for a handshake. A sixteenth of the places is sure for each
// network; while half of all are free, one network may have more of them: many
// nodes behind one address are usual, and then a burst is not an attack.
func (l *listener) enter(conn net.Conn) (refused string) {
	from := network(conn.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.isClosed:
		return "closing"
	case l.pipes >= l.set.maxPipes:
		return "too many connections"
	case len(l.pending) >= l.set.maxPending:
		return "too many handshakes"
	case l.perNet[from] >= max(1, l.set.maxPending/16) && len(l.pending) >= l.set.maxPending/2:
		return "too many handshakes from one network"
	}
	l.pending[conn] = from
	l.perNet[from]++
	return ""
}

// leave gives the place back and, when the handshake went well, takes one for the
// connection.
func (l *listener) leave(conn net.Conn, err error) (*pipe, error) {
	l.mu.Lock()
	from := l.pending[conn]
	delete(l.pending, conn)
	if l.perNet[from]--; l.perNet[from] == 0 {
		delete(l.perNet, from)
	}
	full := err == nil && l.pipes >= l.set.maxPipes
	if err == nil && !full {
		l.pipes++
	}
	closing := l.isClosed
	l.mu.Unlock()

	switch {
	case full:
		l.set.stats.refused.Add(1)
		l.set.log.warn("sp: connection refused", "peer", conn.RemoteAddr(), "reason", "too many connections")
		return nil, errors.New("too many connections")
	case err == nil:
		l.set.stats.accepted.Add(1)
		return newPipe(conn, l.set, l.gone), nil
	case closing:
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.set.stats.handshakeFailed.Add(1)
		l.set.stats.stall.Add(1)
		l.set.log.warn("sp: no greeting from peer", "peer", conn.RemoteAddr(), "after", l.set.handshakeTimeout)
	case errors.Is(err, ErrHandshake):
		l.set.stats.handshakeFailed.Add(1)
		l.set.log.warn("sp: peer refused", "peer", conn.RemoteAddr(), "err", err)
	default: // it hung up, as a port scanner or a health check does
		l.set.stats.handshakeFailed.Add(1)
		l.set.log.debug("sp: handshake failed", "peer", conn.RemoteAddr(), "err", err)
	}
	return nil, err
}

// gone gives a connection's place back.
func (l *listener) gone() {
	l.mu.Lock()
	l.pipes--
	l.mu.Unlock()
}

func (l *listener) counts() (pipes, pending int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pipes, len(l.pending)
}

// Accept is called by one goroutine of mangos' core, which passes each connection
// to the protocol before it comes back for the next.
func (l *listener) Accept() (mangos.TranPipe, error) {
	select {
	case <-l.closed: // first, lest a close waits for a crowd
	default:
		select {
		case p := <-l.ready:
			return p, nil
		case <-l.closed:
		}
	}
	close(l.served)
	return nil, mangos.ErrClosed
}

// Close ends the accept loop and pending handshakes and waits for their
// goroutines. Connections that were handed on live.
func (l *listener) Close() error {
	l.mu.Lock()
	first := !l.isClosed
	l.isClosed = true
	if first {
		close(l.closed)
		if l.ln != nil {
			_ = l.ln.Close()
		}
		for conn := range l.pending {
			_ = conn.Close()
		}
	}
	l.mu.Unlock()
	l.wg.Wait()
	return nil
}

// stop is Close, and waits until mangos' core will not add another connection:
// the core deadlocks when its socket is closed while it adds one.
func (l *listener) stop() {
	_ = l.Close()
	<-l.served
}

func (l *listener) Address() string {
	if l.ln != nil {
		return userScheme + l.ln.Addr().String()
	}
	return userScheme + l.hostport
}

func (l *listener) SetOption(name string, value any) error {
	if name != optSettings {
		return mangos.ErrBadOption
	}
	set, ok := value.(*settings)
	if !ok {
		return mangos.ErrBadValue
	}
	l.set = set
	return nil
}

func (l *listener) GetOption(name string) (any, error) {
	if name == optListener {
		return l, nil
	}
	return nil, mangos.ErrBadOption
}

// network is what one owner of addresses usually has: an IPv4 address or an IPv6
// /64. Other kinds of address share one network.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits)
	return p
}
