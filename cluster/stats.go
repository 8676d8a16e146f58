package cluster

import "sync/atomic"

// Stats is what a node counted since its start, and how it stands now.
type Stats struct {
	Alive     int // members, this node included, observers not
	Left      int // listed as such
	Failed    int
	Observers int // live now

	HealthScore   int // memberlist's: 0 is healthy, more means that this node or its network is slow
	MetadataBytes int // of codec.MaxMetadata

	Rejected  Rejected // alive messages that were refused
	Conflicts uint64   // running nodes met under this node's name

	RejoinAttempts  uint64 // exchanges tried in the background
	RejoinSuccesses uint64
	Repairs         uint64 // exchanges because another's list of members differed
	Sleeps          uint64 // times this process was found to have been stopped

	EventsDropped uint64 // that slow readers lost

	GossipSent     uint64 // own messages accepted
	GossipRelayed  uint64 // others' messages accepted
	GossipAlone    uint64 // accepted with nobody there to hear them
	GossipBusy     uint64 // own messages refused with ErrGossipBusy
	GossipDropped  uint64 // messages dropped from the full queue before their last transmission
	GossipQueued   int    // messages being transmitted
	GossipReceived uint64 // messages handed to the consumer, reliable ones included

	InboundDropped uint64 // messages dropped because the consumer was too slow
	InboundIgnored uint64 // messages that came while nobody consumed them
	InboundQueued  int    // messages waiting for the consumer
	Malformed      uint64 // messages and states that could not be read
	StateTooLarge  uint64 // times the consumer's state was over MaxGossipState and not sent

	ReliableSent   uint64 // SendReliable that returned nil
	ReliableFailed uint64

	StreamsRefused uint64 // inbound streams over the limit
}

// Rejected counts alive messages that NotifyAlive refused, by reason. The same
// message is refused each time it comes along.
type Rejected struct {
	Metadata uint64 // could not be read: another version, another program, damage
	Name     uint64 // memberlist's name and the metadata's do not agree
	Address  uint64 // not the address of one host
	Protocol uint64 // memberlist protocol versions that do not fit
	Members  uint64 // MaxMembers reached
	Departed uint64 // the instance said goodbye before
}

// counters is the part of Stats that only grows.
type counters struct {
	rejectedMetadata, rejectedName, rejectedAddress, rejectedProtocol, rejectedMembers, rejectedDeparted atomic.Uint64

	conflicts, rejoinAttempts, rejoinSuccesses, repairs, sleeps, eventsDropped        atomic.Uint64
	gossipSent, gossipRelayed, gossipAlone, gossipBusy, gossipDropped, gossipReceived atomic.Uint64
	inboundDropped, inboundIgnored, malformed, stateTooLarge                          atomic.Uint64
	reliableSent, reliableFailed                                                      atomic.Uint64
}

// Stats returns the counters and the state of this moment. It works after Close too.
func (n *Node) Stats() Stats {
	c := &n.stats
	s := Stats{
		HealthScore: n.ml.GetHealthScore(),
		Rejected: Rejected{
			Metadata: c.rejectedMetadata.Load(),
			Name:     c.rejectedName.Load(),
			Address:  c.rejectedAddress.Load(),
			Protocol: c.rejectedProtocol.Load(),
			Members:  c.rejectedMembers.Load(),
			Departed: c.rejectedDeparted.Load(),
		},
		Conflicts:       c.conflicts.Load(),
		RejoinAttempts:  c.rejoinAttempts.Load(),
		RejoinSuccesses: c.rejoinSuccesses.Load(),
		Repairs:         c.repairs.Load(),
		Sleeps:          c.sleeps.Load(),
		EventsDropped:   c.eventsDropped.Load(),
		GossipSent:      c.gossipSent.Load(),
		GossipRelayed:   c.gossipRelayed.Load(),
		GossipAlone:     c.gossipAlone.Load(),
		GossipBusy:      c.gossipBusy.Load(),
		GossipDropped:   c.gossipDropped.Load(),
		GossipQueued:    n.gossip.queue.NumQueued(),
		GossipReceived:  c.gossipReceived.Load(),
		InboundDropped:  c.inboundDropped.Load(),
		InboundIgnored:  c.inboundIgnored.Load(),
		InboundQueued:   n.inbox.len(),
		Malformed:       c.malformed.Load(),
		StateTooLarge:   c.stateTooLarge.Load(),
		ReliableSent:    c.reliableSent.Load(),
		ReliableFailed:  c.reliableFailed.Load(),
		StreamsRefused:  n.transport.refused.Load(),
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	s.MetadataBytes = len(n.meta)
	s.Observers = n.table.observers
	n.table.each(func(r *record) bool {
		switch r.member.Status {
		case Alive:
			s.Alive++
		case Left:
			s.Left++
		case Failed:
			s.Failed++
		}
		return true
	})
	return s
}
