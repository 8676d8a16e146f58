package cluster

import (
	"bytes"
	"fmt"
	"maps"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// Advertise tells the cluster that this node offers service at endpoint: ":PORT"
// for a port of the address that others are told, or a URL such as
// tcp://10.0.0.5:41234. It replaces what was advertised for service before.
// This node sees it at once, the others within about a second.
//
// Errors: *codec.NameError for a service or endpoint that is not valid,
// *codec.LimitError when the metadata would not fit its 512 bytes (then what
// was advertised before stays), ErrClosed.
func (n *Node) Advertise(service, endpoint string) error {
	err := codec.ValidService(service)
	if err == nil {
		err = codec.ValidEndpoint(endpoint)
	}
	if err == nil {
		err = n.updateSelf(func(md *codec.Metadata) { md.Services[service] = endpoint })
	}
	if err != nil {
		return fmt.Errorf("cluster: advertise %s: %w", service, err)
	}
	return nil
}

// Withdraw takes back what Advertise said of service; nothing advertised is no
// error. Errors: ErrClosed.
func (n *Node) Withdraw(service string) error {
	if err := n.updateSelf(func(md *codec.Metadata) { delete(md.Services, service) }); err != nil {
		return fmt.Errorf("cluster: withdraw %s: %w", service, err)
	}
	return nil
}

// SetTags replaces this node's tags: keys of 1 to 63 bytes of a-z A-Z 0-9 . _ - /,
// values of up to 128 bytes of printable UTF-8, and with the services no more
// than fits the 512 bytes of metadata. Keep them short: each node sends them on.
//
// Errors: *codec.NameError, *codec.LimitError (the old tags stay), ErrClosed.
func (n *Node) SetTags(tags map[string]string) error {
	if err := n.updateSelf(func(md *codec.Metadata) { md.Tags = maps.Clone(tags) }); err != nil {
		return fmt.Errorf("cluster: set tags: %w", err)
	}
	return nil
}

// updateSelf changes the metadata and publishes it.
func (n *Node) updateSelf(change func(*codec.Metadata)) error {
	n.mu.Lock()
	if n.stopping.Load() {
		n.mu.Unlock()
		return ErrClosed
	}
	err := n.setSelf(change)
	n.mu.Unlock()
	if err == nil && n.dirty.Load() {
		n.announce()
	}
	return err
}

// setSelf changes the metadata, here only. n.mu is held.
func (n *Node) setSelf(change func(*codec.Metadata)) error {
	md := n.self
	md.Services = maps.Clone(md.Services)
	if md.Services == nil {
		md.Services = make(map[string]string)
	}
	change(&md)
	meta, err := md.Append(nil)
	if err != nil {
		return err
	}
	if bytes.Equal(meta, n.meta) {
		return nil
	}
	n.self, n.meta = md, meta
	r := newRecord(n.key, n.transport.advertise, meta, &md)
	if known := n.table.instances[n.key]; known != nil && known.member.Status == r.member.Status {
		r.member.Since = known.member.Since
	}
	n.changed(n.table.put(r))
	n.dirty.Store(true)
	return nil
}

// publishBurst is how many changes in a row are published at once; after that
// they go out together, one publication per publishGap.
const publishBurst = 8

// announce publishes a change at once if it can, so that whoever joins through
// this node from now on gets it, and else leaves it to publish.
func (n *Node) announce() {
	if n.members.Load() < 2 || n.mayPublish(time.Now()) {
		n.flush()
		return
	}
	select {
	case n.changedSelf <- struct{}{}:
	default:
	}
}

// mayPublish spends one publication, if there is one.
func (n *Node) mayPublish(now time.Time) bool {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	gap := n.settings.profile.publishGap
	// spent is the time that the publications so far have taken, were they a gap apart.
	n.spent = maxTime(n.spent, now.Add(-publishBurst*gap)).Add(gap)
	if n.spent.After(now) {
		n.spent = n.spent.Add(-gap)
		return false
	}
	return true
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// publish publishes the changes that came too fast. The end of n.ctx ends it.
func (n *Node) publish() {
	for {
		select {
		case <-n.changedSelf:
		case <-n.ctx.Done():
			return
		}
		if !n.sleep(n.settings.profile.publishGap) {
			return
		}
		n.flush()
	}
}

// flush publishes the metadata now if it has changed. Whoever is about to
// exchange states calls it first: an exchange carries what memberlist knows.
func (n *Node) flush() {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	if !n.dirty.Swap(false) {
		return
	}
	// UpdateNode queues the news and then waits for their last transmission,
	// which is of no interest; only a timeout above 0 ends that.
	_ = n.ml.UpdateNode(time.Nanosecond)
}

// sleep reports whether d passed before the node began to stop.
func (n *Node) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// offers reports whether r offers all of services.
func (r *record) offers(services []string) (missing string, ok bool) {
	for _, service := range services {
		if _, ok := r.member.Services[service]; !ok {
			return service, false
		}
	}
	return "", true
}
