package cluster

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// What memberlist adds to a gossiped message, in bytes. A compound packet has
// a header of 2, each message in it 3 more (2 for its length, 1 for its type),
// encryption takes 29 of the whole packet, and the name of the cluster its
// length and 2. One that does not fit one packet would never be sent and never
// be dropped.
const (
	packetHeader    = 2
	messageHeader   = 3
	encryptOverhead = 29
	labelHeader     = 2
)

const (
	// gossipQueue bounds the messages being transmitted; with a packet's worth
	// each they are 1.4 MiB.
	gossipQueue = 1024

	// gossipBurst is how far ahead of the budget a node may be: so much time of
	// it, and not less than so many packets.
	gossipBurst        = 4 * time.Second
	gossipBurstPackets = 8
)

// gossip is the queue that memberlist takes user messages from, and the budget
// that keeps it from growing: memberlist sends every message T times from every
// node, so the cluster as a whole carries
//
//	GossipNodes/GossipInterval × floor(packet/(size+3)) / T
//
// messages a second and not one more, however many nodes it has.
type gossip struct {
	queue    memberlist.TransmitLimitedQueue
	packet   int // bytes of a packet that messages can use
	targets  int
	interval time.Duration
	mult     int
	members  *atomic.Int64

	mu     sync.Mutex
	tokens float64 // packets
	last   time.Time
}

func newGossip(c *memberlist.Config, members *atomic.Int64) *gossip {
	g := &gossip{
		packet:   c.UDPBufferSize - packetHeader,
		targets:  c.GossipNodes,
		interval: c.GossipInterval,
		mult:     c.RetransmitMult,
		members:  members,
	}
	if len(c.SecretKey) > 0 {
		g.packet -= encryptOverhead
	}
	if c.Label != "" {
		g.packet -= labelHeader + len(c.Label)
	}
	g.queue.RetransmitMult = c.RetransmitMult
	g.queue.NumNodes = func() int { return int(members.Load()) } // never memberlist's own count: it takes memberlist's lock
	g.tokens = g.capacity(g.rate(int(members.Load())))
	return g
}

// limit is the largest payload, in bytes.
func (g *gossip) limit() int { return g.packet - messageHeader - frameHeader }

// rate is the packets a second that the cluster has for new messages.
func (g *gossip) rate(members int) float64 {
	targets := min(g.targets, max(1, members-1))
	transmissions := g.mult * int(math.Ceil(math.Log10(float64(members+1))))
	return float64(targets) / g.interval.Seconds() / float64(transmissions)
}

func (g *gossip) capacity(rate float64) float64 {
	return max(gossipBurstPackets, rate*gossipBurst.Seconds())
}

// perPacket is how many messages with a payload of size bytes share a packet.
func (g *gossip) perPacket(size int) int {
	return max(1, g.packet/(size+frameHeader+messageHeader))
}

// enqueue takes payload into transmission if the budget and the queue have
// room. A relay is never refused: it takes what is left of the budget, and in a
// full queue the place of the message transmitted most often.
func (g *gossip) enqueue(payload []byte, relay bool, now time.Time) (dropped bool, busy *GossipBusyError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	full := g.queue.NumQueued() >= gossipQueue
	if full && !relay {
		members := int(g.members.Load())
		return false, g.busy(len(payload), members, 1/g.rate(members))
	}
	if busy := g.spend(len(payload), relay, now); busy != nil {
		return false, busy
	}
	if full {
		g.queue.Prune(gossipQueue - 1)
	}
	g.queue.QueueBroadcast(frame(newFrame(frameGossip, payload)))
	return full, nil
}

// spend takes a message's share of a packet from the budget. g.mu is held.
func (g *gossip) spend(size int, must bool, now time.Time) *GossipBusyError {
	members := int(g.members.Load())
	rate := g.rate(members)
	per := float64(g.perPacket(size))
	if !g.last.IsZero() {
		g.tokens += now.Sub(g.last).Seconds() * rate
	}
	g.last = now
	g.tokens = min(g.tokens, g.capacity(rate))
	cost := 1 / per
	if !must && g.tokens < cost-1e-9 { // sixths do not add up to one exactly
		return g.busy(size, members, (cost-g.tokens)/rate)
	}
	g.tokens = max(0, g.tokens-cost)
	return nil
}

func (g *gossip) busy(size, members int, seconds float64) *GossipBusyError {
	return &GossipBusyError{
		Size:       size,
		Rate:       g.rate(members) * float64(g.perPacket(size)),
		Members:    members,
		RetryAfter: max(time.Millisecond, time.Duration(seconds*float64(time.Second))),
	}
}

// frame is a message on memberlist's queue.
type frame []byte

func (f frame) Invalidates(memberlist.Broadcast) bool { return false }
func (f frame) Message() []byte                       { return f }
func (f frame) Finished()                             {}
func (f frame) UniqueBroadcast()                      {}

// Gossip queues payload for transmission to random members, which should hand
// it on when they see it first: memberlist does not relay by itself. relay says
// that it came from another node. payload may be reused afterwards.
//
// The budget that the cluster has for gossip is small: about 11 messages of 200
// bytes a second for 50 nodes together on a LAN. A message of this node's own
// that is beyond it is refused; a relay is always taken, and paid from the same
// budget. At most 1,024 messages are in transmission: then own ones are refused,
// and a relay takes the place of the message transmitted most often (counted).
// Alone in the cluster there is nobody to tell, which is no error.
//
// Errors: *codec.LimitError when payload does not fit one packet,
// *GossipBusyError (ErrGossipBusy), ErrEmpty, ErrClosed.
func (n *Node) Gossip(payload []byte, relay bool) error {
	g := n.gossip
	switch {
	case n.stopping.Load():
		return n.closedError("gossip")
	case len(payload) == 0:
		return fmt.Errorf("cluster: gossip: %w", ErrEmpty)
	case len(payload) > g.limit():
		return fmt.Errorf("cluster: gossip: %w", &codec.LimitError{What: "gossip payload", Size: len(payload), Limit: g.limit()})
	case n.members.Load() < 2:
		n.stats.gossipAlone.Add(1)
		return nil
	}
	dropped, busy := g.enqueue(payload, relay, time.Now())
	if busy != nil {
		n.stats.gossipBusy.Add(1)
		return busy
	}
	if dropped {
		n.stats.gossipDropped.Add(1)
		n.warn("gossip cut short: more is relayed than the cluster can carry", "queued", gossipQueue)
	}
	if relay {
		n.stats.gossipRelayed.Add(1)
	} else {
		n.stats.gossipSent.Add(1)
	}
	return nil
}

// MaxGossip is the largest payload that Gossip takes, in bytes.
func (n *Node) MaxGossip() int { return n.gossip.limit() }
