package cluster

import "github.com/hashicorp/memberlist"

// delegate is what memberlist calls. Some of its methods run under memberlist's
// locks, so none of them calls memberlist, and none waits for anything but
// short locks of our own.
type delegate struct{ n *Node }

var (
	_ memberlist.Delegate      = (*delegate)(nil)
	_ memberlist.EventDelegate = (*delegate)(nil)
	_ memberlist.AliveDelegate = (*delegate)(nil)
	_ memberlist.PingDelegate  = (*delegate)(nil)
)

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte {
	d.n.mu.RLock()
	defer d.n.mu.RUnlock()
	return d.n.meta
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.n.gossip.queue.GetBroadcasts(overhead, limit)
}

// NotifyMsg implements memberlist.Delegate.
func (d *delegate) NotifyMsg(b []byte) { d.n.receive(b) }

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return d.n.localState() }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(b []byte, _ bool) { d.n.mergeState(b) }
