package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip reaches each node with high probability, not for certain: when many
// join at once, a few pairs do not hear of each other, and memberlist mends
// that with a periodic exchange of states, after a minute or more in a cluster
// of some size. Therefore each ack of a probe, which goes around once a second
// anyhow, carries a digest of the live members. Who finds its own to differ
// from its neighbours', twice in a row and since gossip had its time, exchanges
// states with one of them.
//
// The digest on the wire is a byte for the version, 1, and 8 bytes.
const (
	digestVersion = 1
	digestSize    = 1 + 8

	digestSettle = 10 // gossip intervals without an agreement before a difference counts
	digestMisses = 2  // differences in a row
)

// digest is a record's part in the digest of the table, which is the exclusive
// or of all parts: the same for the same members, in whatever order they came.
func (r *record) digest() uint64 {
	h := sha256.New()
	h.Write([]byte(r.key))
	h.Write([]byte{0})
	h.Write([]byte(r.member.Addr))
	h.Write([]byte{0})
	h.Write(r.meta)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// comparison is what a node remembers of the digests it has met.
type comparison struct {
	diverged chan netip.AddrPort // buffered: where rejoin should look

	mu     sync.Mutex
	agreed time.Time // when a neighbour had the same digest last
	misses int
	next   time.Time // no repair before
	pause  time.Duration
}

func newComparison() *comparison {
	return &comparison{diverged: make(chan netip.AddrPort, 1), agreed: time.Now()}
}

// AckPayload implements memberlist.PingDelegate.
func (d *delegate) AckPayload() []byte {
	n := d.n
	n.mu.RLock()
	defer n.mu.RUnlock()
	return binary.BigEndian.AppendUint64([]byte{digestVersion}, n.table.digest)
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (d *delegate) NotifyPingComplete(other *memberlist.Node, _ time.Duration, payload []byte) {
	n := d.n
	if len(payload) != digestSize || payload[0] != digestVersion {
		return // a stranger, or a version that has more to say
	}
	n.mu.RLock()
	same := n.table.digest == binary.BigEndian.Uint64(payload[1:])
	n.mu.RUnlock()
	if !n.comparison.met(same, time.Now(), digestSettle*n.config.GossipInterval, n.settings.profile.recheck) {
		return
	}
	select {
	case n.comparison.diverged <- peerAddr(other):
	default:
	}
}

// met notes a comparison and reports whether to repair now. Gossip gets the time
// settle since the last agreement, and not since the last change: where tags or
// observers keep changing, no node is ever without a recent one. Repairs that do
// not help come less and less often, down to one in most: the difference may be
// there to stay, for one when a node refuses a member that others accept, and
// then some neighbours agree and others never will.
func (c *comparison) met(same bool, now time.Time, settle, most time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if same {
		c.misses, c.agreed = 0, now
		return false
	}
	if now.Sub(c.agreed) < settle {
		return false
	}
	c.misses++
	if c.misses < digestMisses || now.Before(c.next) {
		return false
	}
	if now.Sub(c.next) > most { // nothing to repair for so long: the last one helped
		c.pause = 0
	}
	c.misses = 0
	first := 2 * settle
	c.pause = min(max(2*c.pause, first), max(most, first))
	c.next = now.Add(jitter(c.pause))
	return true
}

// repair exchanges states with a member whose list differs.
func (n *Node) repair(addr netip.AddrPort) {
	n.stats.repairs.Add(1)
	for addr, err := range n.attempt(n.ctx, []netip.AddrPort{addr}) {
		n.log.Debug("exchanged states with a member whose list differs", "addr", addr.String(), "err", err)
	}
}
