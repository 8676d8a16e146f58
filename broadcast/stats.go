package broadcast

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is a snapshot. The counters grow from Open on; the rest is the present.
type Stats struct {
	// Best effort.
	GossipSent       uint64 // BestEffort calls that returned nil
	GossipRefused    uint64 // BestEffort calls that returned an error
	GossipReceived   uint64 // messages of others, each counted once
	GossipDuplicates uint64 // further copies of those
	GossipRelayed    uint64 // passed on
	RelaysDropped    uint64 // not passed on: the cluster's gossip queue refused
	CaughtUp         uint64 // of GossipReceived: came by push/pull
	Skipped          uint64 // said before this node came or Open was called; not delivered

	// Reliable, sending.
	ReliableSent    uint64 // Reliable calls that sent
	ReliableRefused uint64 // Reliable calls that sent nothing
	MembersHandled  uint64 // over all receipts
	MembersWritten  uint64
	MembersFailed   uint64

	// Reliable, receiving.
	ReliableReceived   uint64 // messages of others, each counted once
	ReliableDuplicates uint64 // copies, answered like the first
	Busy               uint64 // refused: no room in the queue
	Expired            uint64 // refused: not begun before the sender stopped waiting

	// Both, receiving.
	Handled       uint64 // handler calls
	HandlerErrors uint64 // of those: returned an error or panicked
	HandlerPanics uint64 // of those: panicked
	Dropped       uint64 // lost before the handler, nobody told: queue full, closing or no handler
	Malformed     uint64 // could not be read, or was not allowed

	QueueMessages  int // waiting for the handler now
	QueueBytes     int
	QueueWaiting   int // reliable messages waiting for room in the queue
	RecentMessages int // offered to others in push/pull
	RecentBytes    int

	// Limits in force.
	MaxMessage       int // bytes, body of Reliable
	MaxGossip        int // bytes, body of BestEffort
	Fanout           int // sends at once of one Reliable call
	MaxQueueMessages int
	MaxQueueBytes    int
}

type counters struct {
	gossipSent, gossipRefused, gossipReceived, gossipDuplicates atomic.Uint64
	gossipRelayed, relaysDropped, caughtUp, skipped             atomic.Uint64
	reliableSent, reliableRefused                               atomic.Uint64
	membersHandled, membersWritten, membersFailed               atomic.Uint64
	reliableReceived, reliableDuplicates, busy, expired         atomic.Uint64
	handled, handlerErrors, handlerPanics, dropped, malformed   atomic.Uint64
}

// Stats returns a snapshot, of a closed Broadcaster too.
func (b *Broadcaster) Stats() Stats {
	c := &b.count
	s := Stats{
		GossipSent:       c.gossipSent.Load(),
		GossipRefused:    c.gossipRefused.Load(),
		GossipReceived:   c.gossipReceived.Load(),
		GossipDuplicates: c.gossipDuplicates.Load(),
		GossipRelayed:    c.gossipRelayed.Load(),
		RelaysDropped:    c.relaysDropped.Load(),
		CaughtUp:         c.caughtUp.Load(),
		Skipped:          c.skipped.Load(),

		ReliableSent:    c.reliableSent.Load(),
		ReliableRefused: c.reliableRefused.Load(),
		MembersHandled:  c.membersHandled.Load(),
		MembersWritten:  c.membersWritten.Load(),
		MembersFailed:   c.membersFailed.Load(),

		ReliableReceived:   c.reliableReceived.Load(),
		ReliableDuplicates: c.reliableDuplicates.Load(),
		Busy:               c.busy.Load(),
		Expired:            c.expired.Load(),

		Handled:       c.handled.Load(),
		HandlerErrors: c.handlerErrors.Load(),
		HandlerPanics: c.handlerPanics.Load(),
		Dropped:       c.dropped.Load(),
		Malformed:     c.malformed.Load(),

		MaxMessage:       b.cfg.MaxMessage,
		MaxGossip:        b.cfg.MaxGossip,
		Fanout:           b.cfg.Fanout,
		MaxQueueMessages: b.queue.maxItems,
		MaxQueueBytes:    b.queue.maxBytes,
	}
	s.QueueMessages, s.QueueBytes, s.QueueWaiting = b.queue.load()
	b.mu.Lock()
	b.recent.prune(time.Now())
	s.RecentMessages, s.RecentBytes = len(b.recent.msgs), b.recent.bytes
	b.mu.Unlock()
	return s
}

// occasional lets something be logged at most every ten seconds.
type occasional struct {
	mu     sync.Mutex
	last   time.Time
	missed int
}

// do calls log, with how often it was not called since the last time.
func (o *occasional) do(log func(missed int)) {
	o.mu.Lock()
	now := time.Now()
	if !o.last.IsZero() && now.Sub(o.last) < 10*time.Second {
		o.missed++
		o.mu.Unlock()
		return
	}
	missed := o.missed
	o.last, o.missed = now, 0
	o.mu.Unlock()
	log(missed)
}
