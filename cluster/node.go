package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// Node is one member of a gossip cluster. Close or Leave it. All methods may be
// called concurrently.
//
// Its goroutines are publish, rejoin, resolveConflicts, logMembers and the
// gossip consumer, beside the transport's two and memberlist's own; stopping the
// node ends them and waits, memberlist's excepted: those end by themselves
// within seconds and can do nothing any more.
type Node struct {
	settings  *settings
	log       *slog.Logger
	name      string
	instance  uint64
	key       string // memberlist's name for this node
	transport *transport
	adapter   *logAdapter
	ml        *memberlist.Memberlist
	config    *memberlist.Config // memberlist's; read-only

	ctx    context.Context // of the goroutines; ends when stopping begins
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	stopping atomic.Bool
	cause    error         // why, when not by Close or Leave; set before lost is closed
	lost     chan struct{} // closed when the name is lost
	hurry    chan struct{} // closed to cut a goodbye short
	hurried  sync.Once
	done     chan struct{} // closed when all is over

	// mu guards what follows. It may be taken under memberlist's locks, so
	// nothing of memberlist is called while it is held.
	mu          sync.RWMutex
	table       *table
	self        codec.Metadata
	meta        []byte // self, encoded
	ended       bool   // no answers any more
	subscribers map[*subscription]struct{}
	news        chan struct{} // closed and replaced at each change of the table

	members atomic.Int64 // live instances, for those who must not take mu

	publishing  sync.Mutex    // one UpdateNode at a time
	spent       time.Time     // see mayPublish; guarded by publishing
	dirty       atomic.Bool   // the metadata changed since the last one
	changedSelf chan struct{} // buffered: wakes publish

	metSelf    atomic.Bool // an exchange of states was one with this node itself
	conflicts  *conflicts
	comparison *comparison
	seeds      *seedBook
	rejoinNow  chan struct{} // buffered: wakes rejoin
	gossip     *gossip
	inbox      *inbox
	limit      limiter // of warnings
	stats      counters
}

// Start checks cfg, listens and is from then on a cluster of one; see Join.
//
// Errors: *ConfigError before anything is started; an error that wraps the
// system's when the address or DataDir cannot be used.
func Start(cfg Config) (*Node, error) {
	s, err := cfg.check()
	if err != nil {
		return nil, err
	}
	bind, advertise, guess, err := s.addresses(context.Background())
	if err != nil {
		return nil, err
	}
	logger := s.Logger.With("node", s.Name)
	now := uint64(time.Now().UnixMilli())
	if s.hooks.epoch != 0 {
		now = s.hooks.epoch
	}
	epoch, err := nextEpoch(s.DataDir, now, logger)
	if err != nil {
		return nil, err
	}
	n := &Node{
		settings: s, log: logger, name: s.Name,
		instance:    newInstance(),
		adapter:     &logAdapter{log: logger},
		lost:        make(chan struct{}),
		hurry:       make(chan struct{}),
		done:        make(chan struct{}),
		subscribers: make(map[*subscription]struct{}),
		news:        make(chan struct{}),
		changedSelf: make(chan struct{}, 1),
		rejoinNow:   make(chan struct{}, 1),
		conflicts:   newConflicts(),
		comparison:  newComparison(),
		seeds:       newSeedBook(s.seeds),
		inbox:       newInbox(),
	}
	n.key = memberKey(n.name, n.instance)
	n.table = newTable(n.key, s.MaxMembers)
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.self = codec.Metadata{Name: n.name, Instance: n.instance, Epoch: epoch, Observer: s.Observer, Tags: s.Tags}
	if n.meta, err = n.self.Append(nil); err != nil {
		return nil, &ConfigError{Field: "Tags", Err: err}
	}
	if n.transport, err = listen(bind, advertise, logger, s.hooks.cut); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.changed(n.table.put(newRecord(n.key, n.transport.advertise, n.meta, &n.self)))
	n.mu.Unlock()

	n.config = n.memberlistConfig()
	n.gossip = newGossip(n.config, &n.members)
	if n.ml, err = memberlist.Create(n.config); err != nil {
		n.adapter.muted.Store(true)
		n.cancel(ErrClosed)
		_ = n.transport.Shutdown()
		return nil, fmt.Errorf("cluster: start: %w", err)
	}
	n.logStart(guess)
	events := n.subscribe()
	n.wg.Go(func() { n.logMembers(events) })
	n.wg.Go(n.publish)
	n.wg.Go(n.resolveConflicts)
	n.wg.Go(n.rejoin)
	return n, nil
}

// memberlistConfig is used once: memberlist writes into it.
func (n *Node) memberlistConfig() *memberlist.Config {
	c := n.settings.profile.memberlist()
	if n.settings.hooks.memberlist != nil {
		n.settings.hooks.memberlist(c)
	}
	c.Name = n.key
	c.Transport = n.transport
	c.BindAddr = n.transport.bound.Addr().String()
	c.BindPort = int(n.transport.bound.Port())
	c.AdvertiseAddr = n.transport.advertise.Addr().String()
	c.AdvertisePort = int(n.transport.advertise.Port())
	c.Label = n.settings.Cluster
	c.SecretKey = n.settings.Key
	c.Logger = log.New(n.adapter, "", 0)
	d := &delegate{n}
	c.Delegate, c.Events, c.Alive, c.Ping = d, d, d, d
	return c
}

func (n *Node) logStart(guess string) {
	advertise := n.transport.advertise
	n.log.Info("gossip started", "bind", n.transport.bound.String(), "advertise", advertise.String(),
		"epoch", n.self.Epoch, "encrypted", len(n.settings.Key) > 0)
	loopback := advertise.Addr().IsLoopback()
	switch {
	case guess != "" && loopback:
		n.log.Warn("other hosts cannot reach this node: "+guess+"; set the address to advertise", "advertise", advertise.String())
	case guess != "":
		n.log.Info("advertising "+guess, "advertise", advertise.String())
	case loopback && !n.transport.bound.Addr().IsLoopback():
		n.log.Warn("other hosts cannot reach this node: it advertises a loopback address", "advertise", advertise.String())
	}
}

// newInstance returns a random number that is not 0.
func newInstance() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		if instance := binary.BigEndian.Uint64(b[:]); instance != 0 {
			return instance
		}
	}
}

// memberKey is what memberlist calls an instance. '~' is in no name.
func memberKey(name string, instance uint64) string {
	return fmt.Sprintf("%s~%016x", name, instance)
}

// Name is the node's name, from Config.
func (n *Node) Name() string { return n.name }

// Instance is random, not 0, and another for each start.
func (n *Node) Instance() uint64 { return n.instance }

// Epoch grows with each start under this name. It may grow again in the
// node's life, when stale records of earlier starts, made with a clock that was
// ahead, stand in its way.
func (n *Node) Epoch() uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.self.Epoch
}

// Addr is the gossip address that others are told, ip:port.
func (n *Node) Addr() string { return n.transport.advertise.String() }

// BindHost is the IP address, or wildcard, that services of this node should
// listen on.
func (n *Node) BindHost() string { return n.transport.bound.Addr().String() }

// Done is closed when the node has stopped: by Close, Leave or a lost name.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err says why Done was closed: nil after Close and Leave (and before), an
// error that wraps ErrNameTaken with the name and the winner's address and
// epoch after a lost name.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.cause
	default:
		return nil
	}
}

// closedError is what methods return when the node has stopped or is about to.
func (n *Node) closedError(op string) error {
	select {
	case <-n.lost:
		return fmt.Errorf("cluster: %s: %w (%w)", op, ErrClosed, n.cause)
	default:
		return fmt.Errorf("cluster: %s: %w", op, ErrClosed)
	}
}

// logMembers says who comes and goes. The end of its subscription ends it.
func (n *Node) logMembers(sub *subscription) {
	for {
		e, ok, open := sub.next()
		switch {
		case !ok && !open:
			return
		case !ok:
			<-sub.wake
			continue
		}
		if e.Member.Instance == n.instance {
			continue
		}
		m := e.Member
		switch e.Type {
		case EventJoined:
			n.log.Info("member joined", "peer", m.Name, "addr", m.Addr)
			if ip, err := netip.ParseAddrPort(m.Addr); err == nil && ip.Addr().IsLoopback() && !n.transport.advertise.Addr().IsLoopback() {
				n.log.Warn("member advertises a loopback address, which only its own host can reach", "peer", m.Name, "addr", m.Addr)
			}
		case EventLeft:
			n.log.Info("member left", "peer", m.Name, "addr", m.Addr)
		case EventFailed:
			n.log.Warn("member failed", "peer", m.Name, "addr", m.Addr)
		case EventUpdated:
			n.log.Debug("member updated", "peer", m.Name, "addr", m.Addr)
		case EventLagged:
			n.log.Warn("membership log lagged", "lost", e.Lost)
		}
	}
}

// warn logs at most one line of a kind per logInterval.
func (n *Node) warn(msg string, args ...any) {
	ok, suppressed := n.limit.allow(msg)
	if !ok {
		n.log.Debug(msg, args...)
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	n.log.Warn(msg, args...)
}

// isSelf reports whether addr is where this node listens.
func (n *Node) isSelf(addr netip.AddrPort) bool {
	bound := n.transport.bound
	if addr == n.transport.advertise || addr == bound {
		return true
	}
	if !bound.Addr().IsUnspecified() || addr.Port() != bound.Port() {
		return false
	}
	if addr.Addr().IsLoopback() {
		return true
	}
	for _, ip := range localAddrs() {
		if ip == addr.Addr() {
			return true
		}
	}
	return false
}
