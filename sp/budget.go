package sp

import (
	"slices"
	"sync"
)

// budget is a number of bytes that messages share, first come first served. One
// message is always admitted, so that none is larger than the budget for ever.
type budget struct {
	limit int

	mu      sync.Mutex
	used    int
	waiting []*claim
}

type claim struct {
	n       int
	granted chan struct{}
}

func newBudget(limit int) *budget { return &budget{limit: limit} }

// acquire takes n bytes, waiting for them until one of the channels is closed; a
// nil channel never is. It reports whether the bytes are the caller's now.
func (b *budget) acquire(n int, stop1, stop2 <-chan struct{}) bool {
	b.mu.Lock()
	if len(b.waiting) == 0 && b.fits(n) {
		b.used += n
		b.mu.Unlock()
		return true
	}
	c := &claim{n: n, granted: make(chan struct{})}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()

	select {
	case <-c.granted:
		return true
	case <-stop1:
	case <-stop2:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, c)
	if i < 0 { // granted at the same moment
		return true
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.grant() // it may have stood before smaller ones
	return false
}

// take takes n bytes at once, over the limit if need be.
func (b *budget) take(n int) {
	b.mu.Lock()
	b.used += n
	b.mu.Unlock()
}

func (b *budget) release(n int) {
	b.mu.Lock()
	b.used -= n
	b.grant()
	b.mu.Unlock()
}

func (b *budget) fits(n int) bool { return b.used <= 0 || b.used+n <= b.limit }

// grant wakes those whose turn it is. The caller holds mu.
func (b *budget) grant() {
	for len(b.waiting) > 0 && b.fits(b.waiting[0].n) {
		c := b.waiting[0]
		b.waiting = slices.Delete(b.waiting, 0, 1)
		b.used += c.n
		close(c.granted)
	}
}
