package unicast

import (
	"context"
	"sync"
	"sync/atomic"
)

// gate counts what is in progress, can be shut, and lets one wait until it is
// empty. To enter and to leave takes one atomic operation each.
type gate struct {
	state atomic.Int64 // how many are inside, and gateShut

	mu      sync.Mutex
	emptied chan struct{} // of those who wait; closed when it is shut and empty
}

const gateShut = 1 << 62

// enter reports whether the gate was open; then leave must follow.
func (g *gate) enter() bool {
	for {
		s := g.state.Load()
		if s&gateShut != 0 {
			return false
		}
		if g.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

// leave reports whether nothing is inside any more.
func (g *gate) leave() (last bool) {
	s := g.state.Add(-1)
	if s == gateShut {
		g.tell()
	}
	return s&^gateShut == 0
}

// shut lets nobody in any more.
func (g *gate) shut() {
	if g.state.Or(gateShut) == 0 {
		g.tell()
	}
}

// shutIfEmpty shuts the gate if nothing is inside, and reports whether it did.
func (g *gate) shutIfEmpty() bool {
	if !g.state.CompareAndSwap(0, gateShut) {
		return false
	}
	g.tell()
	return true
}

func (g *gate) count() int { return int(g.state.Load() &^ gateShut) }

// empty is closed as soon as the gate is shut and nothing is inside.
func (g *gate) empty() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.emptied == nil {
		g.emptied = make(chan struct{})
		if g.state.Load() == gateShut {
			close(g.emptied)
		}
	}
	return g.emptied
}

// tell wakes those who wait. Nobody enters a gate that is shut, so there is one
// call of it when the gate is shut while empty, and one when it becomes empty later.
func (g *gate) tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.emptied == nil {
		g.emptied = make(chan struct{})
	}
	select {
	case <-g.emptied: // empty saw it first
	default:
		close(g.emptied)
	}
}

// wait returns when nothing is inside or ctx has ended, and how many still are.
// The gate must be shut.
func (g *gate) wait(ctx context.Context) int {
	select {
	case <-g.empty():
		return 0
	case <-ctx.Done():
		return g.count()
	}
}
