package unicast

import (
	"context"
	"sync"
)

// gate counts what is in progress, can be shut, and lets one wait until it is
// empty.
type gate struct {
	mu     sync.Mutex
	inside int
	closed bool
	empty  signal
}

// enter reports whether the gate was open; then leave must follow.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 {
		g.empty.fire()
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}

// wait returns when nothing is inside or ctx has ended, and how many still are.
// The gate must be shut.
func (g *gate) wait(ctx context.Context) int {
	for {
		g.mu.Lock()
		n := g.inside
		empty := g.empty.wait()
		g.mu.Unlock()
		if n == 0 {
			return 0
		}
		select {
		case <-empty:
		case <-ctx.Done():
			return g.count()
		}
	}
}
