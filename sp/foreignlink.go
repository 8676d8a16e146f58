package sp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// Our roles on other mangos transports: inproc, ipc, ws, whatever the program has
// imported. What those lack they lack here, too: deadlines and caps for handshakes,
// and a dial that can be ended. The limits of messages, queues and connections hold.

// endpoint is what a server listens at.
type endpoint interface {
	Address() string
	counts() (pipes, pending int)
	// stop ends the listening, and returns when there will be no more connections.
	stop()
}

// foreignListener is a listener of another transport.
type foreignListener struct {
	ml     mangos.Listener
	set    *settings
	pipes  *roster
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	closed   bool
	arriving sync.WaitGroup // between arrive and arrived
}

// listenForeign makes sock listen at url. Its protocol passes what comes to adopt,
// from the moment when it calls Listen.
func listenForeign(sock mangos.Socket, a address, set *settings) (*foreignListener, error) {
	options, err := foreignOptions(sock, set)
	if err != nil {
		return nil, err
	}
	ml, err := sock.NewListener(a.inner(), options)
	if err != nil {
		return nil, foreignError(err, a, set)
	}
	l := &foreignListener{ml: ml, set: set, pipes: newRoster(set)}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l, nil
}

func (l *foreignListener) Listen() error   { return l.ml.Listen() }
func (l *foreignListener) Address() string { return l.ml.Address() }

func (l *foreignListener) counts() (pipes, pending int) { return l.pipes.count(), 0 }

// arrive lets a connection in unless the listening has ended; stop waits for arrived.
func (l *foreignListener) arrive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.arriving.Add(1)
	}
	return !l.closed
}

func (l *foreignListener) arrived() { l.arriving.Done() }

// adopt makes a pipe of one of mangos', if there is a place for it. It holds up the
// transport's accept loop while Config.Identify thinks.
func (l *foreignListener) adopt(pp mangos.ProtocolPipe) (*pipe, error) {
	conn := foreignConn(pp)
	peer, err := l.set.name(l.ctx, conn, foreignTLS(pp), false, time.Now().Add(l.set.handshakeTimeout))
	if err != nil {
		_ = conn.Close()
		l.set.stats.unidentified.Add(1)
		l.set.log.warn("sp: peer not identified", "peer", conn.RemoteAddr(), "err", err)
		return nil, err
	}
	from := network(conn.RemoteAddr())
	if refusal := l.pipes.take(from, peer.name); refusal != "" {
		_ = conn.Close()
		l.set.stats.refused.Add(1)
		l.set.log.warn("sp: connection refused", "peer", conn.RemoteAddr(), "name", peer.name, "reason", refusal)
		return nil, errRefused
	}
	l.set.stats.accepted.Add(1)
	p := newPipe(conn, peer, l.set, func() { l.pipes.give(from, peer.name) })
	p.ours = true
	return p, nil
}

// closeWith closes the pipe and mangos' pipe over it. The core closes a pipe of our own
// transport by itself, but not one that we made of another's.
func (p *pipe) closeWith(pp mangos.ProtocolPipe) {
	_ = p.Close()
	_ = pp.Close()
}

// stop ends the listening. A connection that mangos' core is just adding is refused by
// arrive; the core must not be caught with its socket closed meanwhile, so whoever owns
// the socket leaves it open and closes the connections one by one.
func (l *foreignListener) stop() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel(ErrClosed)
	_ = l.ml.Close()
	l.arriving.Wait()
}

// dialForeign has sock dial url within ctx, once. The protocol gets the pipe before it
// returns. A dial that is given up goes on for as long as the transport lets it, since
// none can be ended; the protocol must refuse what comes of it.
func dialForeign(ctx context.Context, sock mangos.Socket, a address, set *settings) error {
	options, err := foreignOptions(sock, set)
	if err != nil {
		return err
	}
	d, err := sock.NewDialer(a.inner(), options)
	if err != nil {
		return foreignError(err, a, set)
	}
	limit := connectTimeout + set.handshakeTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no connection within %v", limit))
	defer cancel()
	dialed := make(chan error, 1)
	go func() {
		err := d.Dial()
		_ = d.Close() // it would dial again
		dialed <- err
	}()
	select {
	case err := <-dialed:
		if err != nil {
			return plain(err)
		}
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// foreignPipe makes a pipe of one that dialForeign made mangos give to its protocol.
func foreignPipe(ctx context.Context, pp mangos.ProtocolPipe, set *settings) (*pipe, error) {
	conn := foreignConn(pp)
	peer, err := set.name(ctx, conn, foreignTLS(pp), true, time.Now().Add(set.handshakeTimeout))
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	p := newPipe(conn, peer, set, nil)
	p.ours = true
	return p, nil
}

// foreignOptions are what another transport should know; the limit of a message only if
// it has one.
func foreignOptions(sock mangos.Socket, set *settings) (map[string]any, error) {
	if err := sock.SetOption(mangos.OptionMaxRecvSize, set.maxFrame); err != nil {
		return nil, err
	}
	if set.tls == nil {
		return nil, nil
	}
	return map[string]any{mangos.OptionTLSConfig: set.tls}, nil
}

func foreignError(err error, a address, set *settings) error {
	if set.tls != nil && errors.Is(err, mangos.ErrBadOption) {
		return fmt.Errorf("Config.TLS is set and %s has no TLS", a.scheme)
	}
	return plain(err)
}
