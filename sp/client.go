package sp

import (
	"context"
	"fmt"
	"sync"
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
	done  chan struct{}  // closed when the connection has ended
	wg    sync.WaitGroup // the role's goroutines; they end with the connection
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
	c.sock = newSocket(&socketProtocol{
		info: info,
		attach: func(pp mangos.ProtocolPipe) (err error) {
			c.pp = pp
			c.tp, err = transportPipe(pp)
			return err
		},
		detach: func(mangos.ProtocolPipe) { close(c.done) },
	})
	set := newSettings(cfg, cfg.MaxMessage+headerRoom, &c.stats, c.log)
	if err := c.connect(addr, &dialSettings{settings: set, ctx: ctx}); err != nil {
		_ = c.sock.Close()
		return nil, &callError{"dial", url, err}
	}
	return c, nil
}

func (c *client) connect(addr address, set *dialSettings) error {
	if set.ctx.Err() != nil {
		return contextError(set.ctx)
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
	if c.tp == nil {
		return mangos.ErrBadTran
	}
	return nil
}

// checkSize refuses a message that the peer would, by our own limit, refuse.
func (c *client) checkSize(size int) error {
	if size <= c.cfg.MaxMessage {
		return nil
	}
	c.stats.tooLarge.Add(1)
	return fmt.Errorf("%w: %w", ErrNotSent, &LimitError{Size: uint64(size), Limit: c.cfg.MaxMessage})
}

// ended reports whether the connection has ended.
func (c *client) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

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
	return fmt.Errorf("%w: %w", ErrNotSent, cause)
}

func (c *client) close() {
	_ = c.pp.Close() // detaches
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
