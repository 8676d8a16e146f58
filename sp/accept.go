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

	mu         sync.Mutex
	isClosed   bool
	pending    map[net.Conn]netip.Prefix // in the handshake
	handshakes places                    // the same
	pipes      places                    // until the last message is handled
}

func newListener(hostport string, info mangos.ProtocolInfo) *listener {
	return &listener{
		hostport: hostport, info: info,
		ready: make(chan *pipe), closed: make(chan struct{}), served: make(chan struct{}),
		pending: make(map[net.Conn]netip.Prefix),
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

// enter takes a place for a handshake.
func (l *listener) enter(conn net.Conn) (refused string) {
	from := network(conn.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return "closing"
	}
	refused = l.pipes.refusal(from, "connections")
	if refused == "" {
		refused = l.handshakes.refusal(from, "handshakes")
	}
	if refused == "" {
		l.handshakes.take(from)
		l.pending[conn] = from
	}
	return refused
}

// leave gives the place back and, when the handshake went well, takes one for the
// connection.
func (l *listener) leave(conn net.Conn, err error) (*pipe, error) {
	l.mu.Lock()
	from := l.pending[conn]
	delete(l.pending, conn)
	l.handshakes.give(from)
	refused := ""
	if err == nil {
		refused = l.pipes.refusal(from, "connections")
		if refused == "" {
			l.pipes.take(from)
		}
	}
	closing := l.isClosed
	l.mu.Unlock()

	switch {
	case refused != "":
		l.set.stats.refused.Add(1)
		l.set.log.warn("sp: connection refused", "peer", conn.RemoteAddr(), "reason", refused)
		return nil, errors.New(refused)
	case err == nil:
		l.set.stats.accepted.Add(1)
		return newPipe(conn, l.set, func() { l.gone(from) }), nil
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
func (l *listener) gone(from netip.Prefix) {
	l.mu.Lock()
	l.pipes.give(from)
	l.mu.Unlock()
}

func (l *listener) counts() (pipes, pending int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pipes.taken, l.handshakes.taken
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
	l.use(set)
	return nil
}

func (l *listener) use(set *settings) {
	l.set = set
	l.handshakes, l.pipes = newPlaces(set.maxPending), newPlaces(set.maxPipes)
}

func (l *listener) GetOption(name string) (any, error) {
	if name == optListener {
		return l, nil
	}
	return nil, mangos.ErrBadOption
}
