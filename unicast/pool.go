package unicast

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// pool holds the connections to other nodes: one at most per node and service,
// max in all.
type pool struct {
	dir         Directory
	sp          sp.Config
	inFlight    int
	max         int
	idleTimeout time.Duration
	draining    atomic.Bool // a Shutdown bounds how long links drain
	counters    *counters
	log         *slog.Logger
	crew        crew // the links' goroutines
	closing     chan struct{}
	closed      sync.Once

	turns  atomic.Uint64
	latest atomic.Pointer[link]    // that a call on ended
	recent [2]atomic.Pointer[link] // that a call began on, for each service

	mu      sync.RWMutex
	links   map[linkKey]*link    // those that calls may begin on
	all     map[*link]struct{}   // those and the ones that are ending
	places  int                  // of max, that are taken
	carried map[linkKey]*carried // pushes without a connection
}

func newPool(dir Directory, cfg *Config, c *counters) *pool {
	return &pool{
		dir:         dir,
		sp:          cfg.sp(),
		inFlight:    cfg.InFlight,
		max:         cfg.MaxConnections,
		idleTimeout: cfg.IdleTimeout,
		counters:    c,
		log:         cfg.Logger,
		links:       make(map[linkKey]*link),
		all:         make(map[*link]struct{}),
		closing:     make(chan struct{}),
		carried:     make(map[linkKey]*carried),
	}
}

// acquire returns an open connection to where node offers service now. It joins
// the one that there is, waits for the one that is being made, or makes one.
// release must follow. All its errors mean NotDelivered.
func (p *pool) acquire(ctx context.Context, node, service string) (*link, *Error) {
	key := linkKey{node, service}
	for sure := false; ; sure = true {
		ep, err := p.dir.Lookup(node, service)
		if err != nil {
			return nil, notDelivered("", err)
		}
		if l := p.enter(key, ep); l != nil {
			return l, nil
		}
		l, err := p.join(key, ep, sure)
		if err != nil {
			return nil, notDelivered(ep.URL, err)
		}
		if l == nil {
			continue
		}
		select {
		case <-l.ready:
		case <-ctx.Done():
			p.release(l)
			return nil, notDelivered(ep.URL, connecting(ended(ctx)))
		}
		if l.err == nil {
			return l, nil
		}
		p.release(l)
		if l.late && ctx.Err() == nil {
			continue // the next look will tell what has changed
		}
		return nil, notDelivered(ep.URL, l.err)
	}
}

// enter makes the caller a user of the link that is there and open, or returns
// nil: the short way for nearly all calls.
func (p *pool) enter(key linkKey, ep codec.Endpoint) *link {
	recent := &p.recent[0]
	if key.service == ServiceRep {
		recent = &p.recent[1]
	}
	l := recent.Load()
	if l == nil || l.linkKey != key {
		p.mu.RLock()
		l = p.links[key]
		p.mu.RUnlock()
		if l == nil {
			return nil
		}
		recent.Store(l)
	}
	if l.ep != ep || !l.open.Load() || !l.users.enter() {
		recent.CompareAndSwap(l, nil) // it may have ended
		return nil
	}
	return l
}

// join makes the caller a user of the link for key at ep. When the link there
// is goes elsewhere, nil asks the caller to look again, since the link may be
// newer than the caller's look; a caller that is sure has the link replaced.
func (p *pool) join(key linkKey, ep codec.Endpoint, sure bool) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.links[key]
	if l != nil && l.ep != ep {
		if !sure {
			return nil, nil
		}
		p.retireLocked(l, moved(l.ep, ep))
		l = nil
	}
	if l == nil {
		var err error
		if l, err = p.begin(key, ep); err != nil {
			return nil, err
		}
	}
	l.users.enter() // it is not shut: what is in links is not retired
	return l, nil
}

// begin makes a link and has it dialed, in a place that is free or that an idle link gives up.
func (p *pool) begin(key linkKey, ep codec.Endpoint) (*link, error) {
	var after []<-chan struct{}
	if p.places >= p.max {
		victim := p.leastRecentlyUsed()
		for victim != nil && !victim.isRetired && !victim.users.shutIfEmpty() { // a call was quicker
			victim = p.leastRecentlyUsed()
		}
		if victim == nil {
			return nil, busy("connections in use", p.max, nil)
		}
		victim.promised = true
		after = append(after, victim.closed)
		if !victim.isRetired {
			p.counters.evictions.Add(1)
			p.retireLocked(victim, nil)
		}
		p.places--
	}
	for l := range p.all {
		if l.linkKey != key {
			continue
		}
		if cause := moved(l.ep, ep); cause != nil {
			p.retireLocked(l, cause)
		}
		if key.service == ServicePull {
			after = append(after, l.closed) // what was pushed before comes before
		}
	}
	l := &link{
		linkKey: key,
		ep:      ep,
		ready:   make(chan struct{}),
		retired: make(chan struct{}),
		closed:  make(chan struct{}),
	}
	if key.service == ServiceRep {
		l.slots = make(chan struct{}, p.inFlight)
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	if !p.crew.start(func() { l.run(p, after) }) {
		return nil, ErrClosed
	}
	p.places++
	p.links[key] = l
	p.all[l] = struct{}{}
	return l, nil
}

func (p *pool) leastRecentlyUsed() *link {
	var victim *link
	for l := range p.all {
		if !l.promised && l.idle() && (victim == nil || l.turn.Load() < victim.turn.Load()) {
			victim = l
		}
	}
	return victim
}

// release ends what acquire began. A dial that nobody waits for any more ends.
func (p *pool) release(l *link) {
	if p.latest.Load() != l {
		p.latest.Store(l)
		l.turn.Store(p.turns.Add(1))
	}
	if !l.inUse.Load() {
		l.inUse.Store(true)
	}
	if !l.users.leave() || l.open.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.open.Load() && !l.isRetired && l.users.count() == 0 && p.carried[l.linkKey] == nil {
		p.retireLocked(l, context.Canceled)
	}
}

// retire keeps new calls off l. With a cause it also ends those on it.
func (p *pool) retire(l *link, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retireLocked(l, cause)
}

func (p *pool) retireLocked(l *link, cause error) {
	if cause == nil && !l.open.Load() {
		cause = errMoved
	}
	if cause != nil {
		l.cancel(cause)
	}
	if l.isRetired {
		return
	}
	l.isRetired = true
	close(l.retired)
	if p.links[l.linkKey] == l {
		delete(p.links, l.linkKey)
	}
	l.users.shut()
	p.latest.CompareAndSwap(l, nil)
}

// retireIdle retires l if it is idle.
func (p *pool) retireIdle(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.isRetired || !l.idle() || !l.users.shutIfEmpty() {
		return
	}
	p.counters.idleClosed.Add(1)
	p.retireLocked(l, nil)
}

// opened lets calls begin on l. What it was to carry is queued on it.
func (p *pool) opened(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.carried[l.linkKey]; c != nil {
		p.forget(l.linkKey, c)
	}
	l.open.Store(true)
}

// finish forgets l, whose connection is closed, or was never made.
func (p *pool) finish(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.open.Store(false)
	l.cancel(nil)
	delete(p.all, l)
	if !l.promised {
		p.places--
	}
	close(l.closed)
}

// follow keeps the links to service in step with the Directory, until ctx ends.
func (p *pool) follow(ctx context.Context, service string) {
	for set := range p.dir.Providers(ctx, service) {
		for _, l := range p.current(service) {
			if set[l.node] != l.ep {
				p.check(l)
			}
		}
	}
}

// check retires l if its node is not there any more. The set that made us look
// may be older than l, so the Directory has the word.
func (p *pool) check(l *link) {
	ep, err := p.dir.Lookup(l.node, l.service)
	switch {
	case err == nil && ep == l.ep:
	case err == nil:
		p.retire(l, moved(l.ep, ep))
	case nodeFailed(err):
		p.retire(l, errNodeDead)
	default:
		// It has left, or closes its mailbox, and may be about to answer.
		p.retire(l, nil)
	}
}

// moved is the reason to end the calls on a link: that the node they went to
// does not exist any more. At another address of the same node they may go on.
func moved(from, to codec.Endpoint) error {
	if from.Instance != to.Instance {
		return errReplaced
	}
	return nil
}

func (p *pool) current(service string) []*link {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var links []*link
	for key, l := range p.links {
		if key.service == service {
			links = append(links, l)
		}
	}
	return links
}

// size returns the open connections and the pushes that are not written.
func (p *pool) size() (open, messages, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.all {
		if !l.open.Load() {
			continue
		}
		open++
		if l.push != nil {
			m, b := l.push.Queued()
			messages += m
			bytes += b
		}
	}
	for _, c := range p.carried {
		messages += len(c.frames)
		bytes += c.bytes()
	}
	return open, messages, bytes
}

// drain waits, within ctx, until all pushes are written or lost.
func (p *pool) drain(ctx context.Context) {
	for drained := false; !drained; {
		var pushing []*link
		var ends []<-chan struct{}
		p.mu.Lock()
		for l := range p.all {
			if l.open.Load() && l.push != nil {
				pushing = append(pushing, l)
			}
		}
		for _, c := range p.carried {
			ends = append(ends, c.over)
		}
		p.mu.Unlock()
		for _, l := range pushing {
			if l.push.Drain(ctx) != nil || isDone(l.push) { // what it did not write is carried
				ends = append(ends, l.closed)
			}
		}
		for _, end := range ends {
			select {
			case <-end:
			case <-ctx.Done():
				return
			}
		}
		drained = len(ends) == 0
	}
}

// close ends all links and waits for them.
func (p *pool) close() {
	p.closed.Do(func() { close(p.closing) })
	p.crew.dismiss()
	p.mu.Lock()
	for l := range p.all {
		p.retireLocked(l, ErrClosed)
	}
	p.mu.Unlock()
	p.crew.wait()
}

func (p *pool) isClosing() bool {
	select {
	case <-p.closing:
		return true
	default:
		return false
	}
}

func isDone(conn connection) bool {
	select {
	case <-conn.Done():
		return true
	default:
		return false
	}
}
