package sp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// connectTimeout bounds a dial whose context does not; the system's own bound is
// over two minutes.
const connectTimeout = 10 * time.Second

// dialSettings go down to a dialer: a dial of one of our roles belongs to one call and
// its context.
type dialSettings struct {
	*settings
	ctx context.Context
}

// dialer makes connections. For one of our roles it makes one, once: mangos' core
// dials again by itself when the connection is lost; it hears ErrClosed then and gives
// up. For a socket of mangos' own it dials as often as the core wants.
type dialer struct {
	options
	tran     tran
	sock     mangos.Socket
	hostport string
	used     atomic.Bool

	watch    sync.Once
	watchErr error
	ctx      context.Context // of our role's call, or for others until the socket closes
	cancel   context.CancelFunc
}

func (d *dialer) Dial() (mangos.TranPipe, error) {
	set, err := d.settings(false)
	if err != nil {
		return nil, err
	}
	if set == d.own {
		if d.used.Swap(true) {
			return nil, mangos.ErrClosed
		}
		p, err := d.dial(d.ctx, set)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	ctx, err := d.whileOpen()
	if err != nil {
		return nil, err
	}
	p, err := d.dial(ctx, set)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = p.Close()
		}
		return nil, mangos.ErrClosed // the core dials no more
	case err != nil:
		return nil, err
	}
	return p, nil
}

// dial connects and shakes hands, within ctx.
func (d *dialer) dial(ctx context.Context, set *settings) (*pipe, error) {
	nd := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: set.keepAlive, Control: socketOptions(0)}
	conn, err := nd.DialContext(ctx, "tcp", d.hostport)
	if err != nil {
		return nil, explain(ctx, err, fmt.Errorf("no connection within %v", connectTimeout))
	}
	greeted, peer, err := d.greet(ctx, conn, set)
	if err != nil {
		_ = conn.Close()
		return nil, explain(ctx, err, fmt.Errorf("%w: not complete within %v", ErrHandshake, set.handshakeTimeout))
	}
	p := newPipe(greeted, peer, set, nil)
	p.unwatch = watch(conn, set.vanishTime, func() { p.broken(errVanished) })
	return p, nil
}

// greet shakes hands and learns who the peer is, until the context ends or
// HandshakeTimeout is over.
func (d *dialer) greet(ctx context.Context, conn net.Conn, set *settings) (greeted net.Conn, peer peerInfo, err error) {
	deadline := time.Now().Add(set.handshakeTimeout)
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	greeted, peer, err = d.shake(ctx, conn, set, deadline)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		_ = conn.SetDeadline(time.Time{})
	}
	return greeted, peer, err
}

func (d *dialer) shake(ctx context.Context, conn net.Conn, set *settings, deadline time.Time) (net.Conn, peerInfo, error) {
	info := d.sock.Info()
	var state *tls.ConnectionState
	if d.secure {
		c, st, err := startTLS(conn, clientTLS(set.tls, d.hostport), true)
		if err != nil {
			return nil, peerInfo{}, err
		}
		conn, state = c, st
	}
	if err := greet(conn, info); err != nil {
		return nil, peerInfo{}, err
	}
	if err := readGreeting(conn, info); err != nil {
		if err == errHungUp {
			err = errNotGreeted
		}
		return nil, peerInfo{}, err
	}
	peer, err := set.name(ctx, conn, state, true, deadline)
	return conn, peer, err
}

// errNotGreeted is a dial to a listener that does not take the connection.
var errNotGreeted = fmt.Errorf("%w before it greeted: it refuses us, or is closing", errHungUp)

// explain says whose limit it was when a step of the dial took too long.
func explain(ctx context.Context, err, timeout error) error {
	if t, ok := ctx.Deadline(); ok && !time.Now().Before(t) {
		<-ctx.Done() // package net may notice a moment earlier than the context
	}
	_, refused := errors.AsType[*unidentified](err)
	switch {
	case ctx.Err() != nil:
		return contextError(ctx)
	case refused:
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return timeout
	}
	return plain(err)
}

func (d *dialer) SetOption(name string, value any) error {
	if name != optSettings {
		return d.setOption(name, value)
	}
	set, ok := value.(*dialSettings)
	if !ok {
		return mangos.ErrBadValue
	}
	d.use(set.settings)
	d.ctx = set.ctx
	return nil
}

func (d *dialer) GetOption(name string) (any, error) {
	if name == OptionStats {
		return d.stats.snapshot(), nil
	}
	return d.getOption(name)
}

// whileOpen is a context that ends when the socket is closed, which mangos does not
// tell its dialers. It does tell listeners: so one that never listens watches for us.
func (d *dialer) whileOpen() (context.Context, error) {
	d.watch.Do(func() {
		d.ctx, d.cancel = context.WithCancel(context.Background())
		_, d.watchErr = d.sock.NewListener(d.tran.scheme+"://"+d.hostport, map[string]any{optOnClose: func() { d.cancel() }})
	})
	return d.ctx, d.watchErr
}
