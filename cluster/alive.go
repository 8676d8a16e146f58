package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// memberlistProtocol is what memberlist v0.7 speaks. Whoever says otherwise of
// itself makes every push/pull of the whole cluster fail.
const memberlistProtocol = memberlist.ProtocolVersion2Compatible

var errDeparted = errors.New("it said goodbye before")

// claim is what a valid alive message says.
type claim struct {
	addr netip.AddrPort
	md   codec.Metadata
}

// parseClaim checks a stranger's word. The counter is that of the reason when
// there is an error.
func (c *counters) parseClaim(peer *memberlist.Node) (*claim, error) {
	md, err := codec.ParseMetadata(peer.Meta)
	if err != nil {
		c.rejectedMetadata.Add(1)
		return nil, err
	}
	if peer.Name != memberKey(md.Name, md.Instance) {
		c.rejectedName.Add(1)
		return nil, fmt.Errorf("metadata is that of %s", memberKey(md.Name, md.Instance))
	}
	ip, ok := netip.AddrFromSlice(peer.Addr)
	ip = ip.Unmap()
	if fault := hostFault(ip); !ok || fault != "" {
		c.rejectedAddress.Add(1)
		return nil, fmt.Errorf("address %v %s", ip, fault)
	}
	if peer.Port == 0 {
		c.rejectedAddress.Add(1)
		return nil, errors.New("port 0")
	}
	if md.Epoch > maxEpoch {
		c.rejectedMetadata.Add(1)
		return nil, fmt.Errorf("epoch %d is over the highest, %d", md.Epoch, uint64(maxEpoch))
	}
	if !protocolFits(peer) {
		c.rejectedProtocol.Add(1)
		return nil, fmt.Errorf("memberlist protocol %d (%d to %d), delegate protocol %d (%d to %d)",
			peer.PCur, peer.PMin, peer.PMax, peer.DCur, peer.DMin, peer.DMax)
	}
	return &claim{addr: netip.AddrPortFrom(ip, peer.Port), md: md}, nil
}

func protocolFits(peer *memberlist.Node) bool {
	return peer.PMin <= memberlistProtocol && peer.PMax >= memberlistProtocol && peer.PCur == memberlistProtocol &&
		peer.DMin == 0 && peer.DCur == 0
}

// NotifyAlive implements memberlist.AliveDelegate: an error keeps memberlist
// from believing the message and from passing it on. It sees every alive
// message, also the old ones that memberlist goes on to ignore.
func (d *delegate) NotifyAlive(peer *memberlist.Node) error {
	n := d.n
	if peer.Name == n.key {
		return nil // memberlist itself refutes what others say of us
	}
	err := n.consider(peer)
	if err != nil && !errors.Is(err, errDeparted) {
		n.warn("refused a member", "peer", fmt.Sprintf("%.80q", peer.Name), "addr", fmt.Sprintf("%.64s", peer.Address()), "err", err)
	}
	return err
}

func (n *Node) consider(peer *memberlist.Node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.table.instances[peer.Name]
	if known != nil && known.alive() && bytes.Equal(known.meta, peer.Meta) && known.addr == peerAddr(peer) && protocolFits(peer) {
		return nil
	}
	c, err := n.stats.parseClaim(peer)
	switch {
	case err != nil:
		return err
	case known == nil && n.table.full():
		n.stats.rejectedMembers.Add(1)
		return fmt.Errorf("there are %d members, as many as are allowed", n.table.max)
	case known == nil:
		return nil
	case c.md.Leaving:
		// The goodbye may come after memberlist has taken the node for dead, and
		// then memberlist ignores it.
		n.depart(known, Left)
		return nil
	case known.member.Status == Left:
		n.stats.rejectedDeparted.Add(1)
		return errDeparted
	}
	return nil
}

func peerAddr(peer *memberlist.Node) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(peer.Addr)
	return netip.AddrPortFrom(ip.Unmap(), peer.Port)
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(peer *memberlist.Node) { d.n.believe(peer) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(peer *memberlist.Node) { d.n.believe(peer) }

// believe takes over what memberlist accepted after NotifyAlive had its say.
func (n *Node) believe(peer *memberlist.Node) {
	if peer.Name == n.key {
		return // the table has what Advertise and SetTags put there
	}
	c, err := n.stats.parseClaim(peer)
	if err != nil {
		return
	}
	r := newRecord(peer.Name, c.addr, bytes.Clone(peer.Meta), &c.md)
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.table.instances[r.key]; known != nil {
		if known.member.Status == Left {
			return // it cannot come back, only a new instance can
		}
		if known.member.Status == r.member.Status {
			r.member.Since = known.member.Since
		}
	}
	if r.member.Observer && !r.alive() {
		n.changed(n.table.remove(r.key))
		return
	}
	n.changed(n.table.put(r))
	if r.alive() && r.member.Name == n.name {
		n.conflicts.wake()
	}
}

// NotifyLeave implements memberlist.EventDelegate. It is called for a leave and
// for a crash alike; the metadata tells them apart, or a goodbye that came
// another way.
func (d *delegate) NotifyLeave(peer *memberlist.Node) {
	n := d.n
	if peer.Name == n.key {
		return
	}
	md, err := codec.ParseMetadata(peer.Meta)
	n.mu.Lock()
	defer n.mu.Unlock()
	status := Failed
	if err == nil && md.Leaving {
		status = Left
	}
	n.depart(n.table.instances[peer.Name], status)
}

// sayGoodbye marks an instance as left on the word of somebody. It may correct
// Failed to Left.
func (n *Node) sayGoodbye(name string, instance uint64) {
	key := memberKey(name, instance)
	if key == n.key {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.depart(n.table.instances[key], Left)
}

// depart notes that r, which may be nil, is gone. What left stays left, and
// observers are forgotten. n.mu is held.
func (n *Node) depart(r *record, status Status) {
	switch {
	case r == nil, r.member.Status == Left, r.member.Status == status:
		return
	case r.member.Observer:
		n.changed(n.table.remove(r.key))
		return
	}
	n.changed(n.table.put(r.with(status)))
	if status == Failed {
		n.wakeRejoin()
	}
}
