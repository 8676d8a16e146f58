package sp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// connectTimeout bounds a dial whose context does not; the system's own bound is
// over two minutes.
const connectTimeout = 10 * time.Second

// dialSettings go down to a dialer: a dial belongs to one call and its context.
type dialSettings struct {
	*settings
	ctx context.Context
}

// dialer makes one connection, once. mangos' core dials again by itself when the
// connection is lost; it hears ErrClosed then and gives up.
type dialer struct {
	hostport string
	info     mangos.ProtocolInfo
	set      *dialSettings
	used     atomic.Bool
}

func (d *dialer) Dial() (mangos.TranPipe, error) {
	if d.used.Swap(true) {
		return nil, mangos.ErrClosed
	}
	if d.set == nil {
		return nil, errForeign
	}
	nd := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: keepAlive}
	conn, err := nd.DialContext(d.set.ctx, "tcp", d.hostport)
	if err != nil {
		return nil, d.explain(err, fmt.Errorf("no connection within %v", connectTimeout))
	}
	if err := d.greet(conn); err != nil {
		_ = conn.Close()
		return nil, d.explain(err, fmt.Errorf("%w: no greeting within %v", ErrHandshake, d.set.handshakeTimeout))
	}
	return newPipe(conn, d.set.settings, nil), nil
}

// greet shakes hands until the context ends or HandshakeTimeout is over.
func (d *dialer) greet(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(d.set.handshakeTimeout))
	stop := context.AfterFunc(d.set.ctx, func() { _ = conn.Close() })
	err := handshake(conn, d.info)
	if !stop() && err == nil {
		err = d.set.ctx.Err()
	}
	if err == nil {
		_ = conn.SetDeadline(time.Time{})
	}
	return err
}

// explain says whose limit it was when a step of the dial took too long.
func (d *dialer) explain(err, timeout error) error {
	ctx := d.set.ctx
	if t, ok := ctx.Deadline(); ok && !time.Now().Before(t) {
		<-ctx.Done() // package net may notice a moment earlier than the context
	}
	switch {
	case ctx.Err() != nil:
		return contextError(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return timeout
	}
	return plain(err)
}

func (d *dialer) SetOption(name string, value any) error {
	if name != optSettings {
		return mangos.ErrBadOption
	}
	set, ok := value.(*dialSettings)
	if !ok {
		return mangos.ErrBadValue
	}
	d.set = set
	return nil
}

func (d *dialer) GetOption(string) (any, error) { return nil, mangos.ErrBadOption }
