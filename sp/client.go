package sp

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// client is what Requester and Pusher have in common: one connection to one peer,
// in a socket of its own, so that nobody else's message can come out of it.
type client struct {
	url   string
	cfg   Config
	stats counters
	log   *logger
	sock  mangos.Socket
	pp    mangos.ProtocolPipe
	tp    *pipe

	attaching sync.Mutex
	abandoned bool  // the dial has failed
	refused   error // by attach

	done chan struct{}  // closed when the connection has ended
	gone atomic.Bool    // it is
	wg   sync.WaitGroup // the role's goroutines; they end with the connection
}

func dial(ctx context.Context, url string, info mangos.ProtocolInfo, headerRoom int, cfg Config) (*client, error) {
	cfg, err := cfg.normalized()
	if err != nil {
		return nil, err
	}
	addr, err := parseURL(url, false, cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("sp: dial: %w", err)
	}
	c := &client{url: url, cfg: cfg, log: newLogger(cfg.Logger.With("addr", url)), done: make(chan struct{})}
	set := &dialSettings{settings: newSettings(cfg, cfg.MaxMessage+headerRoom, &c.stats, c.log), ctx: ctx}
	c.sock = newSocket(&socketProtocol{
		info:   info,
		attach: func(pp mangos.ProtocolPipe) error { return c.attach(pp, set) },
		detach: func(mangos.ProtocolPipe) {
			_ = c.tp.fail(io.EOF) // if nobody knows better: see foreignConn
			c.gone.Store(true)
			close(c.done)
		},
	})
	if err := c.connect(addr, set); err != nil {
		c.giveUp()
		return nil, &callError{"dial", url, err}
	}
	return c, nil
}

// attach is called by mangos' core with the connection, once.
func (c *client) attach(pp mangos.ProtocolPipe, set *dialSettings) (err error) {
	c.attaching.Lock()
	defer c.attaching.Unlock()
	if c.abandoned {
		return ErrClosed
	}
	tp, err := transportPipe(pp)
	if err != nil {
		tp, err = foreignPipe(set.ctx, pp, set.settings)
	}
	if err == nil {
		c.pp, c.tp = pp, tp
	}
	c.refused = err
	return err
}

// giveUp ends a dial that failed. One over another transport may be under way yet; what
// comes of it is refused.
func (c *client) giveUp() {
	c.attaching.Lock()
	c.abandoned = true
	tp, pp := c.tp, c.pp
	c.attaching.Unlock()
	if tp != nil {
		tp.closeWith(pp)
	}
	_ = c.sock.Close()
}

func (c *client) connect(addr address, set *dialSettings) error {
	if set.ctx.Err() != nil {
		return contextError(set.ctx)
	}
	if addr.foreign {
		if err := dialForeign(set.ctx, c.sock, addr, set.settings); err != nil {
			return err
		}
		return c.refused
	}
	d, err := c.sock.NewDialer(addr.inner(), map[string]any{
		optSettings:                set,
		mangos.OptionReconnectTime: time.Duration(0),
	})
	if err != nil {
		return err
	}
	if err := d.Dial(); err != nil { // attaches the connection before it returns
		return err
	}
	return c.refused
}

// checkSize refuses a message that the peer would, by our own limit, refuse.
func (c *client) checkSize(size int) error {
	if size <= c.cfg.MaxMessage {
		return nil
	}
	c.stats.tooLarge.Add(1)
	return notSent(&LimitError{Size: uint64(size), Limit: c.cfg.MaxMessage})
}

// ended reports whether the connection has ended.
func (c *client) ended() bool { return c.gone.Load() }

// unsent is the error of a message that was not handed to the connection, because
// of the connection's end, or the context's, or else of a Shutdown.
func (c *client) unsent(ctx context.Context) error {
	cause := ErrClosed
	switch {
	case c.ended():
		cause = c.tp.endedBy()
	case ctx.Err() != nil:
		cause = contextError(ctx)
	}
	return notSent(cause)
}

func notSent(cause error) error { return fmt.Errorf("%w: %w", ErrNotSent, cause) }

func (c *client) close() {
	c.tp.closeWith(c.pp) // detaches
	_ = c.sock.Close()
	c.wg.Wait()
}

func (c *client) snapshotStats() Stats {
	st := c.stats.snapshot()
	if !c.ended() {
		st.Pipes = 1
	}
	return st
}
