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

// updateSelf changes the metadata, here at once and elsewhere by publish.
func (n *Node) updateSelf(change func(*codec.Metadata)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping.Load() {
		return ErrClosed
	}
	return n.setSelf(change)
}

// setSelf is updateSelf for who holds n.mu.
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
	select {
	case n.changedSelf <- struct{}{}:
	default:
	}
	return nil
}

// publish hands changes of the metadata to memberlist: those that come together
// travel together, and one publication has some time to spread before the next.
// The end of n.ctx ends it.
func (n *Node) publish() {
	for {
		select {
		case <-n.changedSelf:
		case <-n.ctx.Done():
			return
		}
		if !n.sleep(n.settings.profile.settle) {
			return
		}
		n.flush()
		if !n.sleep(n.settings.profile.publishGap) {
			return
		}
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
