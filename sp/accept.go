package sp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// listener accepts connections and shakes hands with them beside the accept loop,
// so that a mute peer holds up nobody. All its goroutines are in wg and end with
// Close.
type listener struct {
	options
	tran     tran
	hostport string
	info     mangos.ProtocolInfo
	set      *settings
	onClose  func() // see dialer.whileOpen

	ln     net.Listener
	ready  chan *pipe    // greeted, for mangos' core
	closed chan struct{} // by Close
	served chan struct{} // when the core has gone from Accept for good
	ctx    context.Context
	cancel context.CancelCauseFunc // by Close
	wg     sync.WaitGroup

	mu         sync.Mutex
	isClosed   bool
	pending    map[net.Conn]netip.Prefix // in the handshake
	handshakes places                    // the same
	pipes      *roster                   // until the last message is handled
}

func newListener(hostport string, info mangos.ProtocolInfo) *listener {
	l := &listener{
		hostport: hostport, info: info,
		ready: make(chan *pipe), closed: make(chan struct{}), served: make(chan struct{}),
		pending: make(map[net.Conn]netip.Prefix),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

func (l *listener) Listen() error {
	set, err := l.settings(true)
	if err != nil {
		return err
	}
	lc := net.ListenConfig{KeepAliveConfig: set.keepAlive, Control: socketOptions(set.userTimeout())}
	lc.SetMultipathTCP(false) // else the socket's options are not inherited
	ln, err := lc.Listen(context.Background(), "tcp", strings.TrimPrefix(l.hostport, "*"))
	if err != nil {
		return plain(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		_ = ln.Close()
		return mangos.ErrClosed
	}
	l.begin(set)
	l.ln = ln
	l.wg.Go(l.acceptLoop)
	return nil
}

// begin makes the places that the settings have.
func (l *listener) begin(set *settings) {
	l.set = set
	l.handshakes, l.pipes = newPlaces(set.maxPending), newRoster(set)
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
		l.set.stats.acceptErrors.Add(1)
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
		l.refused(conn, "", reason)
		_ = conn.Close()
		return
	}
	l.wg.Go(func() {
		p, err := l.shake(conn)
		l.leave(conn, err)
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

// shake shakes hands with conn and learns who it is, within HandshakeTimeout. Our own
// greeting comes last, when the connection has its place.
func (l *listener) shake(conn net.Conn) (*pipe, error) {
	deadline := time.Now().Add(l.set.handshakeTimeout)
	_ = conn.SetDeadline(deadline)
	remote := conn.RemoteAddr()
	plain, peer, err := l.know(conn, deadline)
	if err != nil {
		return nil, err
	}
	from := network(remote)
	if refusal := l.pipes.take(from, peer.name); refusal != "" {
		l.refused(conn, peer.name, refusal)
		return nil, errRefused
	}
	if err := greet(plain, l.info); err != nil {
		l.pipes.give(from, peer.name)
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	l.set.stats.accepted.Add(1)
	return newPipe(plain, peer, l.set, func() { l.pipes.give(from, peer.name) }), nil
}

// know finds out who dialed: somebody who speaks TLS if we do, our protocol's
// counterpart, and with the name that Config.Identify gives.
func (l *listener) know(conn net.Conn, deadline time.Time) (net.Conn, peerInfo, error) {
	var state *tls.ConnectionState
	if l.secure {
		c, st, err := startTLS(conn, l.set.tls, false)
		if err != nil {
			return nil, peerInfo{}, err
		}
		conn, state = c, st
	}
	if err := readGreeting(conn, l.info); err != nil {
		if errors.Is(err, ErrHandshake) {
			_ = greet(conn, l.info) // so that it knows who we are
		}
		return nil, peerInfo{}, err
	}
	peer, err := l.set.name(l.ctx, conn, state, false, deadline)
	return conn, peer, err
}

// errRefused is for a connection without a place, which is counted and logged.
var errRefused = errors.New("refused")

// enter takes a place for a handshake.
func (l *listener) enter(conn net.Conn) (refusal string) {
	from := network(conn.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return "closing"
	}
	refusal = l.pipes.hopeless(from, l.set.identify != nil)
	if refusal == "" {
		if refusal = l.handshakes.refusal(from, "handshakes"); refusal != "" {
			l.set.stats.overPending.Add(1)
		}
	}
	if refusal == "" {
		l.handshakes.take(from)
		l.pending[conn] = from
	}
	return refusal
}

// refused counts and logs a connection for which there is no place.
func (l *listener) refused(conn net.Conn, name, refusal string) {
	l.set.stats.refused.Add(1)
	l.set.log.warn("sp: connection refused", "peer", conn.RemoteAddr(), "name", name, "reason", refusal)
}

// leave gives the place of a handshake back, and says why it failed when it did.
func (l *listener) leave(conn net.Conn, err error) {
	l.mu.Lock()
	from := l.pending[conn]
	delete(l.pending, conn)
	l.handshakes.give(from)
	closing := l.isClosed
	l.mu.Unlock()

	who, unnamed := errors.AsType[*unidentified](err)
	switch {
	case err == nil, closing, err == errRefused:
	case unnamed:
		l.set.stats.unidentified.Add(1)
		l.set.log.warn("sp: peer not identified", "peer", conn.RemoteAddr(), "err", who.err)
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
}

func (l *listener) counts() (pipes, pending int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pipes.count(), l.handshakes.taken
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
		l.cancel(ErrClosed)
		if l.ln != nil {
			_ = l.ln.Close()
		}
		for conn := range l.pending {
			_ = conn.Close()
		}
	}
	l.mu.Unlock()
	if first && l.onClose != nil {
		l.onClose()
	}
	l.wg.Wait()
	return nil
}

// stop is Close, and waits until mangos' core will not add another connection:
// the core deadlocks when its socket is closed while it adds one.
func (l *listener) stop() {
	_ = l.Close()
	<-l.served
}

// Address is tcp://host:port or tls+tcp://host:port for our own roles, whose users
// know no other, and as mangos knows it for other sockets.
func (l *listener) Address() string {
	scheme := l.tran.scheme
	if l.own != nil {
		scheme = l.tran.userScheme()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ln != nil {
		return scheme + "://" + l.ln.Addr().String()
	}
	return scheme + "://" + l.hostport
}

func (l *listener) SetOption(name string, value any) error {
	ok := false
	switch name {
	case optSettings:
		var set *settings
		if set, ok = value.(*settings); ok {
			l.use(set)
		}
	case optOnClose:
		l.onClose, ok = value.(func())
	default:
		return l.setOption(name, value)
	}
	if !ok {
		return mangos.ErrBadValue
	}
	return nil
}

func (l *listener) GetOption(name string) (any, error) {
	switch name {
	case optListener:
		return l, nil
	case OptionStats:
		st := l.stats.snapshot()
		l.mu.Lock()
		listening := l.set != nil
		l.mu.Unlock()
		if listening {
			st.Pipes, st.Pending = l.counts()
		}
		return st, nil
	}
	return l.getOption(name)
}
