package unicast

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lazyContext is a context with a deadline that costs next to nothing until
// somebody waits for its end: only then a timer and the rest of a real context
// are made. Most calls and most handlers are over before that.
type lazyContext struct {
	parent context.Context

	mu       sync.Mutex
	timeout  time.Duration // until deadline, from when that is asked for
	deadline time.Time     // does not change once started
	started  atomic.Bool   // deadline is set
	real     atomic.Pointer[realContext]
	over     atomic.Bool // stop was called
}

type realContext struct {
	context.Context
	cancel context.CancelFunc
}

// start sets the deadline, if it is not set, at a time when it is now.
func (c *lazyContext) start(now time.Time) time.Time {
	if !c.started.Load() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.started.Load() {
			c.deadline = now.Add(c.timeout)
			c.started.Store(true)
		}
	}
	return c.deadline
}

// Deadline implements context.Context.
func (c *lazyContext) Deadline() (time.Time, bool) {
	own := c.ends()
	if d, ok := c.parent.Deadline(); ok && d.Before(own) {
		return d, true
	}
	return own, true
}

func (c *lazyContext) ends() time.Time {
	if c.started.Load() {
		return c.deadline
	}
	return c.start(time.Now())
}

// Done implements context.Context. It makes the real context.
func (c *lazyContext) Done() <-chan struct{} { return c.context().Done() }

// Err implements context.Context. It says when time is up without a timer.
func (c *lazyContext) Err() error {
	if c.real.Load() == nil && !c.over.Load() && c.parent.Err() == nil &&
		(!c.started.Load() || time.Now().Before(c.deadline)) {
		return nil
	}
	return c.context().Err() // which stays what it is from now on
}

// Value implements context.Context. Package context asks it for the real context,
// so that children need no goroutine; it has called Done before.
func (c *lazyContext) Value(key any) any {
	if r := c.real.Load(); r != nil {
		return r.Value(key)
	}
	return c.parent.Value(key)
}

// context returns the real one.
func (c *lazyContext) context() *realContext {
	if r := c.real.Load(); r != nil {
		return r
	}
	deadline := c.ends()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.real.Load()
	if r == nil {
		r = new(realContext)
		r.Context, r.cancel = context.WithDeadline(c.parent, deadline)
		c.real.Store(r)
		if c.over.Load() { // or stop sees it
			r.cancel()
		}
	}
	return r
}

// isReal reports whether a real context was made, which somebody may hold.
func (c *lazyContext) isReal() bool { return c.real.Load() != nil }

// stop ends the context, as a CancelFunc does.
func (c *lazyContext) stop() {
	c.over.Store(true)
	if r := c.real.Load(); r != nil {
		r.cancel()
	}
}

// reset makes c one that ends timeout after its deadline is asked for first. Nobody
// may hold it, and it must be neither real nor stopped.
func (c *lazyContext) reset(parent context.Context, timeout time.Duration) {
	c.parent, c.timeout = parent, timeout
	if c.started.Load() {
		c.started.Store(false)
	}
}
