package cluster

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Members returns what is known of every node, sorted by name: this one, those
// alive, those that left within the hour and those that failed within the day.
// Observers are not among them, not even when this node is one.
func (n *Node) Members() []Member {
	n.mu.RLock()
	records := n.table.sorted()
	n.mu.RUnlock()
	members := make([]Member, len(records))
	for i, r := range records {
		members[i] = r.member.clone()
	}
	return members
}

// Member returns what is known of the node called name. It knows this node
// itself even when it is an observer.
func (n *Node) Member(name string) (Member, bool) {
	n.mu.RLock()
	r := n.find(name)
	n.mu.RUnlock()
	if r == nil {
		return Member{}, false
	}
	return r.member.clone(), true
}

// find returns the record that name stands for, or nil; a node's own name is
// its own until it stops, whatever others claim. n.mu is held.
func (n *Node) find(name string) *record {
	if name == n.name && !n.settings.Observer {
		return n.table.instances[n.key]
	}
	if r := n.table.visible(name); r != nil {
		return r
	}
	if name == n.name {
		return n.table.instances[n.key]
	}
	return nil
}

// Lookup returns where node offers service. It reads memory, never the
// network, so what it says is as old as the latest gossip. node may be this one.
//
// Errors: *LookupError, which wraps ErrUnknownNode, ErrLeft, ErrFailed or
// ErrNoService; ErrClosed.
func (n *Node) Lookup(node, service string) (Endpoint, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.ended {
		return Endpoint{}, n.closedError("lookup " + node)
	}
	if r := n.find(node); r != nil && r.alive() {
		if endpoint, ok := r.member.Services[service]; ok {
			return endpoint, nil
		}
	}
	return Endpoint{}, n.lookupError(node, service)
}

// lookupError says why node, with all the services, cannot be had, or is nil.
// n.mu is held.
func (n *Node) lookupError(node string, services ...string) error {
	r := n.find(node)
	if r == nil {
		var names []string
		n.table.each(func(r *record) bool {
			if r.alive() {
				names = append(names, r.member.Name)
			}
			return true
		})
		return &LookupError{Node: node, Similar: similar(node, names), Err: ErrUnknownNode}
	}
	switch r.member.Status {
	case Left:
		return &LookupError{Node: node, Since: r.member.Since, Err: ErrLeft}
	case Failed:
		return &LookupError{Node: node, Since: r.member.Since, Err: ErrFailed}
	}
	if missing, ok := r.offers(services); !ok {
		return &LookupError{Node: node, Service: missing, Offers: slices.Sorted(maps.Keys(r.member.Services)), Err: ErrNoService}
	}
	return nil
}

// WaitForNode returns nil as soon as node is alive and offers all the services,
// and when ctx or this node ends before that, an error that says what was
// missing and also matches what Lookup would say.
//
// Errors: the cause of ctx, ErrClosed.
func (n *Node) WaitForNode(ctx context.Context, node string, services ...string) error {
	for {
		n.mu.RLock()
		missing, news, ended := n.lookupError(node, services...), n.news, n.ended
		n.mu.RUnlock()
		if ended {
			return n.closedError("wait for " + node)
		}
		if missing == nil {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			if lookup, ok := missing.(*LookupError); ok {
				return &waitError{node: node, cause: context.Cause(ctx), last: lookup}
			}
			return fmt.Errorf("cluster: wait for %s: %w", node, context.Cause(ctx))
		}
	}
}

// waitError is what WaitForNode returns when time is up.
type waitError struct {
	node  string
	cause error
	last  *LookupError
}

func (e *waitError) Error() string {
	return fmt.Sprintf("cluster: wait for %s: %v: %s", e.node, e.cause, e.last.Reason())
}
func (e *waitError) Unwrap() []error { return []error{e.cause, e.last} }

// Providers returns all live nodes that offer service, this one included, with
// their endpoints: the whole set now and again after each change of it. A
// reader that is slow misses sets in between, never the latest. Each set is the
// reader's own. The sequence ends when ctx or the node ends.
func (n *Node) Providers(ctx context.Context, service string) iter.Seq[map[string]Endpoint] {
	return func(yield func(map[string]Endpoint) bool) {
		var last map[string]Endpoint
		for ctx.Err() == nil {
			set := make(map[string]Endpoint)
			n.mu.RLock()
			n.table.each(func(r *record) bool {
				if endpoint, ok := r.member.Services[service]; ok && r.alive() {
					set[r.member.Name] = endpoint
				}
				return true
			})
			news, ended := n.news, n.ended
			n.mu.RUnlock()
			if ended {
				return
			}
			if last == nil || !maps.Equal(last, set) {
				last = maps.Clone(set)
				if !yield(set) {
					return
				}
			}
			select {
			case <-news:
			case <-ctx.Done():
			}
		}
	}
}

// Recipients returns every live member but this node and observers, and
// whether it offers service.
func (n *Node) Recipients(service string) map[string]bool {
	out := make(map[string]bool)
	n.mu.RLock()
	defer n.mu.RUnlock()
	n.table.each(func(r *record) bool {
		if r.alive() && (r.member.Name != n.name || n.settings.Observer) {
			_, offers := r.member.Services[service]
			out[r.member.Name] = offers
		}
		return true
	})
	return out
}
