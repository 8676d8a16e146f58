package unicast

import "sync"

// crew owns goroutines: it starts them until it is dismissed, and waits for all.
type crew struct {
	mu        sync.Mutex
	dismissed bool
	wg        sync.WaitGroup
}

// start runs fn in a goroutine and reports whether the crew still took it.
func (c *crew) start(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed {
		return false
	}
	c.wg.Go(fn)
	return true
}

// dismiss lets nobody start any more.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
}

// wait returns when all have ended. The crew must be dismissed.
func (c *crew) wait() { c.wg.Wait() }
