package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// conflicts is what is known of other instances under this node's own name.
//
// Such an instance may run, by mistake; then the one that ranks lower has to
// stop. Or it is the record of an earlier start of this node that the cluster
// has not yet found to be dead; then nothing is wrong. Gossip does not tell the
// two apart, so the instance is asked: an exchange of states with its address,
// in which it has to name itself.
type conflicts struct {
	pending chan struct{} // buffered: wakes resolveConflicts

	// deciding is held, as the one token in the channel, while an instance is asked.
	deciding chan struct{}

	mu     sync.Mutex
	heard  map[uint64]time.Time // instances under this name that named themselves in an exchange
	judged map[uint64]uint64    // instances asked already, and the epoch they had
	raises int                  // how often the epoch was raised over a stale record
}

// heardRecently is how long an instance counts as running after it was heard.
const heardRecently = 3 * time.Second

// maxRaises bounds how often the epoch is raised in the life of a node.
const maxRaises = 8

// maxNamesakes bounds the maps; when it is reached they begin anew.
const maxNamesakes = 64

func newConflicts() *conflicts {
	c := &conflicts{
		pending:  make(chan struct{}, 1),
		deciding: make(chan struct{}, 1),
		heard:    make(map[uint64]time.Time),
		judged:   make(map[uint64]uint64),
	}
	c.deciding <- struct{}{}
	return c
}

func (c *conflicts) wake() {
	select {
	case c.pending <- struct{}{}:
	default:
	}
}

// hear notes that an instance under this name took part in an exchange.
func (c *conflicts) hear(instance uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heard) >= maxNamesakes {
		clear(c.heard)
	}
	c.heard[instance] = time.Now()
}

func (c *conflicts) heardSince(instance uint64, t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard[instance].After(t)
}

// settled reports whether r, with its epoch, was looked at before.
func (c *conflicts) settled(r *record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	epoch, ok := c.judged[r.member.Instance]
	return ok && epoch == r.member.Epoch
}

func (c *conflicts) settle(r *record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.judged) >= maxNamesakes {
		clear(c.judged)
	}
	c.judged[r.member.Instance] = r.member.Epoch
}

// mayRaise reports whether the epoch may be raised; it may a few times. Otherwise two
// nodes that cannot reach each other would outbid each other for ever.
func (c *conflicts) mayRaise() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.raises >= maxRaises {
		return false
	}
	c.raises++
	return true
}

// resolveConflicts looks at every instance that appears under this node's name.
// The end of n.ctx ends it.
func (n *Node) resolveConflicts() {
	for {
		select {
		case <-n.conflicts.pending:
			_ = n.settleName(n.ctx)
		case <-n.ctx.Done():
			return
		}
	}
}

// settleName looks at all live instances under this node's name that it has not
// looked at before, and returns the cause when the name is lost.
func (n *Node) settleName(ctx context.Context) error {
	if n.settings.Observer {
		return nil
	}
	select {
	case token := <-n.conflicts.deciding:
		defer func() { n.conflicts.deciding <- token }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-n.lost:
		return n.cause
	default:
	}
	for _, other := range n.namesakes() {
		if n.conflicts.settled(other) {
			continue
		}
		cause := n.decide(ctx, other)
		if ctx.Err() != nil {
			return context.Cause(ctx) // undecided; resolveConflicts was woken too
		}
		n.conflicts.settle(other)
		if cause != nil {
			n.surrender(cause)
			return cause
		}
	}
	return nil
}

// outranked reports whether some instance under this node's name ranks above it.
func (n *Node) outranked() bool {
	for _, other := range n.namesakes() {
		n.mu.RLock()
		self := n.table.instances[n.key]
		n.mu.RUnlock()
		if other.outranks(self) {
			return true
		}
	}
	return false
}

// namesakes returns the live instances under this node's name, itself excepted.
func (n *Node) namesakes() []*record {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []*record
	for _, r := range n.table.names[n.name] {
		if r.alive() && r.key != n.key {
			out = append(out, r)
		}
	}
	return out
}

// decide returns why this node has to stop because of other, or nil.
func (n *Node) decide(ctx context.Context, other *record) error {
	n.mu.RLock()
	outranked := other.outranks(n.table.instances[n.key])
	n.mu.RUnlock()
	m := other.member
	runs := n.answers(ctx, other)
	if ctx.Err() != nil {
		return nil
	}
	if runs {
		n.stats.conflicts.Add(1)
		n.mu.Lock()
		n.emit(EventConflict, m)
		n.mu.Unlock()
	}
	switch {
	case runs && !outranked:
		n.log.Warn("took over the name from an older node that still runs; it will stop", "addr", m.Addr, "epoch", m.Epoch)
	case !runs && !outranked:
		n.log.Info("took over the name from an earlier start, which does not answer", "addr", m.Addr, "epoch", m.Epoch)
	case !runs && n.conflicts.mayRaise():
		if err := n.raiseEpoch(m.Epoch); errors.Is(err, ErrClosed) {
			return nil
		} else if err != nil {
			return n.nameTaken(m, err.Error())
		}
		n.log.Warn("an earlier start under this name had a clock that was ahead, and does not answer; raised the epoch over it",
			"addr", m.Addr, "epoch", m.Epoch+1)
	case !runs:
		return n.nameTaken(m, "it does not answer, but others hold it alive")
	default:
		return n.nameTaken(m, "it runs")
	}
	return nil
}

func (n *Node) nameTaken(m Member, how string) error {
	return fmt.Errorf("cluster: %w: %s belongs to the node at %s with epoch %d, this one at %s has epoch %d (%s); give one of them another name",
		ErrNameTaken, n.name, m.Addr, m.Epoch, n.Addr(), n.Epoch(), how)
}

// answers asks the instance at its address whether it is there. A process that
// is stopped does not answer; it will meet its successor when it goes on.
func (n *Node) answers(ctx context.Context, other *record) bool {
	recently := time.Now().Add(-heardRecently)
	if n.isSelf(other.addr) {
		return false // its port is ours now
	}
	ctx, cancel := context.WithTimeout(ctx, n.settings.profile.retryDial)
	defer cancel()
	if n.conflicts.heardSince(other.member.Instance, recently) {
		return true // perhaps about to stop because of us
	}
	return n.exchange(ctx, other.addr) == nil && n.conflicts.heardSince(other.member.Instance, recently)
}

// raiseEpoch puts this node above a stale record.
func (n *Node) raiseEpoch(over uint64) error {
	epoch, err := nextEpoch(n.settings.DataDir, over+1, n.log)
	if err != nil {
		// The file is for the next start; it must not cost this one its name.
		n.log.Warn("the raised epoch cannot be kept", "epoch", over+1, "err", err)
		epoch = over + 1
	}
	return n.updateSelf(func(md *codec.Metadata) { md.Epoch = epoch })
}
