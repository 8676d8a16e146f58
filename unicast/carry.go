package unicast

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// How long the pushes that a broken connection left are carried to another, when
// not one of them gets out, and how often that is tried. Dials that fail at once use up
// the tries in 3 to 4 s.
const (
	carryTime  = 5 * time.Second
	carryTries = 6
	carryWait  = 50 * time.Millisecond // after the first try; doubles
)

// carried are the pushes that a connection had accepted and not written when it
// ended. They go first on the next connection to the same start of their node, which
// is made for them if nobody else asks for it. The peer has seen none of them.
//
// Of those who push to a node one link at a time is past waiting for its
// predecessors, so that there is one carried for it at most, which that link leaves
// or takes. The goroutine of a link that ended answers for what it left until there
// is another link, or the pushes are lost.
type carried struct {
	instance uint64 // of their node
	url      string // where they were meant to go at last
	frames   [][]byte
	err      error         // why they did not get out at last
	since    time.Time     // since when none got out
	tries    int           // connections made for them since then
	taken    bool          // a link is handing them over; its goroutine answers for them
	guarded  bool          // a link that ended answers for them
	over     chan struct{} // closed when they are handed over or lost
}

func (c *carried) bytes() (n int) {
	for _, frame := range c.frames {
		n += len(frame)
	}
	return n
}

// handOver gives a connection that was just made what its predecessor left. Until
// then nobody else may use it.
func (l *link) handOver(p *pool) error {
	p.mu.Lock()
	c := p.carried[l.linkKey]
	if c != nil && c.instance != l.ep.Instance {
		p.lose(l.linkKey, c, errReplaced)
		c = nil
	}
	if c != nil {
		c.taken = true
	}
	p.mu.Unlock()
	for c != nil && len(c.frames) > 0 {
		if err := l.push.Send(l.ctx, c.frames[0]); err != nil {
			return err
		}
		p.mu.Lock()
		c.frames[0] = nil
		c.frames = c.frames[1:]
		p.mu.Unlock()
	}
	if c != nil {
		l.since, l.tries = c.since, c.tries
	}
	return nil
}

// leave keeps what l accepted and did not write, before all that it was to carry
// itself. The connection is closed, for the reason err.
func (l *link) leave(p *pool, err error) {
	unsent := l.push.Unsent()
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.carried[l.linkKey]
	if c == nil {
		if len(unsent) == 0 {
			return
		}
		c = &carried{instance: l.ep.Instance, since: l.since, tries: l.tries, over: make(chan struct{})}
		p.carried[l.linkKey] = c
	}
	c.frames = append(unsent, c.frames...)
	c.taken = false
	c.url, c.err = l.ep.URL, err
	if l.push.Stats().MessagesOut > 0 || c.since.IsZero() {
		c.since, c.tries = time.Now(), 0
	}
}

// notMade notes why the connection was not made that those pushes wait for.
func (p *pool) notMade(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.carried[l.linkKey]; c != nil && l.ctx.Err() == nil {
		c.url, c.err = l.ep.URL, l.err
	}
}

// carryOn has a connection made for the pushes to key that are carried, unless there
// is one, or gives them up. A link's goroutine runs it at its end.
func (p *pool) carryOn(key linkKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.carried[key]
	if c == nil || c.guarded {
		return
	}
	c.guarded = true
	defer func() { c.guarded = false }()
	for p.carried[key] == c && !c.taken && p.links[key] == nil { // else a link answers for them
		tries := c.tries
		p.mu.Unlock()
		p.pause(tries)
		ep, err := p.dir.Lookup(key.node, key.service)
		p.mu.Lock()
		switch {
		case p.carried[key] != c || c.taken || p.links[key] != nil:
		case p.isClosing():
			p.lose(key, c, ErrClosed)
		case err != nil:
			p.lose(key, c, goneError{err})
		case ep.Instance != c.instance:
			p.lose(key, c, errReplaced)
		case c.tries >= carryTries || time.Since(c.since) > carryTime:
			p.lose(key, c, c.err)
		default:
			c.tries++
			if _, err := p.begin(key, ep); err != nil {
				c.err = err
			}
		}
	}
}

// pause waits between two tries, or until the pool is being closed.
func (p *pool) pause(tries int) {
	if tries == 0 {
		return
	}
	wait := carryWait << (tries - 1)
	pause := time.NewTimer(wait + rand.N(wait/4))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-p.closing:
	}
}

// goneError is why a node is not found any more.
type goneError struct{ error }

func (e goneError) Unwrap() error { return e.error }

func isGone(err error) bool {
	_, gone := errors.AsType[goneError](err)
	return gone
}

// lose accounts for pushes that will not get out. p.mu is held.
func (p *pool) lose(key linkKey, c *carried, cause error) {
	messages, bytes := uint64(len(c.frames)), uint64(c.bytes())
	switch {
	case errors.Is(cause, ErrClosed):
		p.counters.lostClosed.Add(messages)
	case errors.Is(cause, errReplaced), isGone(cause):
		p.counters.lostGone.Add(messages)
	default:
		p.counters.lostConn.Add(messages)
	}
	p.counters.lostBytes.Add(bytes)
	p.forget(key, c)
	if messages > 0 {
		p.log.Warn("pushes were lost on their way out", slog.String("peer", key.node), slog.String("url", c.url),
			slog.Uint64("messages", messages), slog.Uint64("bytes", bytes), slog.Any("err", cause))
	}
}

// forget ends c. p.mu is held.
func (p *pool) forget(key linkKey, c *carried) {
	delete(p.carried, key)
	close(c.over)
}
