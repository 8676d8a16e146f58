package unicast

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// key is of the values in these tests.
type key string

// lazily makes a lazyContext that ends in a second.
func lazily(parent context.Context) *lazyContext {
	c := &lazyContext{parent: parent, timeout: time.Second}
	c.start(time.Now())
	return c
}

// TestLazyContextEnds as one of package context would: with its deadline, its
// parent, or stop, whether or not somebody waited for it before.
func TestLazyContextEnds(t *testing.T) {
	errWhy := errors.New("why")
	for name, row := range map[string]struct {
		end      func(c *lazyContext, cancel context.CancelCauseFunc)
		err, why error
	}{
		"deadline": {func(*lazyContext, context.CancelCauseFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded, context.DeadlineExceeded},
		"parent":   {func(_ *lazyContext, cancel context.CancelCauseFunc) { cancel(errWhy) }, context.Canceled, errWhy},
		"stop":     {func(c *lazyContext, _ context.CancelCauseFunc) { c.stop() }, context.Canceled, context.Canceled},
		"all three": {func(c *lazyContext, cancel context.CancelCauseFunc) {
			c.stop()
			cancel(errWhy)
			time.Sleep(time.Second)
		}, context.Canceled, nil},
	} {
		for _, waited := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key("key"), "value"))
					defer cancel(nil)
					c := lazily(parent)
					defer c.stop()
					var called bool
					var child context.Context = c
					if waited {
						context.AfterFunc(c, func() { called = true })
						var cancelChild context.CancelFunc
						child, cancelChild = context.WithCancel(context.WithValue(c, key("other"), 1))
						defer cancelChild()
					}
					if deadline, ok := c.Deadline(); !ok || time.Until(deadline) != time.Second {
						t.Errorf("deadline %v, %v", deadline, ok)
					}
					if c.Err() != nil || c.Value(key("key")) != "value" || context.Cause(c) != nil {
						t.Errorf("before its end: %v, %v, %v", c.Err(), c.Value(key("key")), context.Cause(c))
					}
					row.end(c, cancel)
					synctest.Wait()
					if err := c.Err(); err != row.err {
						t.Errorf("Err is %v, want %v", err, row.err)
					}
					if err := context.Cause(c); row.why != nil && err != row.why {
						t.Errorf("Cause is %v, want %v", err, row.why)
					}
					select {
					case <-c.Done():
					default:
						t.Error("Done is not closed")
					}
					time.Sleep(2 * time.Second)
					if err := c.Err(); err != row.err || child.Err() != row.err || called != waited {
						t.Errorf("later Err is %v, that of a child %v; called: %v", err, child.Err(), called)
					}
				})
			})
		}
	}
}

// TestLazyContextIsCheap: one that nobody waits for makes nothing, and a child
// needs no goroutine, as under a context of package context.
func TestLazyContextIsCheap(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		c := lazyContext{parent: t.Context(), timeout: time.Second}
		c.Deadline()
		_ = c.Err()
		c.Value(key("key"))
		c.stop()
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
	goroutines := runtime.NumGoroutine()
	c := lazily(t.Context())
	defer c.stop()
	for range 100 {
		_, cancel := context.WithCancel(c)
		defer cancel()
	}
	if now := runtime.NumGoroutine(); now > goroutines+50 {
		t.Errorf("%d goroutines, there were %d", now, goroutines)
	}
}
