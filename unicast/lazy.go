package unicast

import (
	"context"
	"sync"
	"time"
)

// lazyContext is a context with a deadline that costs next to nothing until
// somebody waits for its end: only then a timer and the rest of a real context
// are made. Most calls and most handlers are over before that.
type lazyContext struct {
	parent context.Context

	mu       sync.Mutex
	deadline time.Time     // zero until it is asked for, when there is only a timeout
	timeout  time.Duration // from then on
	real     context.Context
	cancel   context.CancelFunc
	over     bool // stop was called
}

// Deadline implements context.Context.
func (c *lazyContext) Deadline() (time.Time, bool) {
	if d, ok := c.parent.Deadline(); ok && d.Before(c.ends()) {
		return d, true
	}
	return c.ends(), true
}

func (c *lazyContext) ends() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endsLocked()
}

func (c *lazyContext) endsLocked() time.Time {
	if c.deadline.IsZero() {
		c.deadline = time.Now().Add(c.timeout)
	}
	return c.deadline
}

// Done implements context.Context. It makes the real context.
func (c *lazyContext) Done() <-chan struct{} { return c.context().Done() }

// Err implements context.Context. It says when time is up without a timer.
func (c *lazyContext) Err() error {
	c.mu.Lock()
	running := c.real == nil && !c.over
	if running && c.parent.Err() == nil && (c.deadline.IsZero() || time.Now().Before(c.deadline)) {
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	return c.context().Err() // which stays what it is from now on
}

// Value implements context.Context. Package context asks it for the real context,
// so that children need no goroutine; it has called Done before.
func (c *lazyContext) Value(key any) any {
	c.mu.Lock()
	from := c.real
	c.mu.Unlock()
	if from == nil {
		from = c.parent
	}
	return from.Value(key)
}

// context returns the real one.
func (c *lazyContext) context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.cancel = context.WithDeadline(c.parent, c.endsLocked())
		if c.over {
			c.cancel()
		}
	}
	return c.real
}

// stop ends the context, as a CancelFunc does. It reports whether a real one was
// made, which somebody may still hold.
func (c *lazyContext) stop() (made bool) {
	c.mu.Lock()
	c.over = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel == nil {
		return false
	}
	cancel()
	return true
}
