package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"sync"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

var (
	_ unicast.Directory = (*citizen)(nil)

	errUnknown   = errors.New("unknown node")
	errNoService = errors.New("no such service")
)

// town is a cluster in one map, in which nobody finds the others but by way of a
// proxy of their own for each service.
type town struct {
	reroute func(node, service, hostport string) string // returns the proxy's host:port

	mu      sync.Mutex
	nodes   map[string]map[string]codec.Endpoint // by name and service
	changed chan struct{}
}

func newTown(reroute func(node, service, hostport string) string) *town {
	return &town{reroute: reroute, nodes: make(map[string]map[string]codec.Endpoint), changed: make(chan struct{})}
}

// node adds a node.
func (w *town) node(name string) *citizen {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[name] = make(map[string]codec.Endpoint)
	return &citizen{w: w, name: name, instance: uint64(len(w.nodes))}
}

func (w *town) change(edit func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	edit()
	close(w.changed)
	w.changed = make(chan struct{})
}

// citizen is the Directory of one node.
type citizen struct {
	w        *town
	name     string
	instance uint64
}

func (c *citizen) Name() string     { return c.name }
func (c *citizen) Instance() uint64 { return c.instance }
func (c *citizen) BindHost() string { return "127.0.0.1" }

func (c *citizen) Lookup(node, service string) (codec.Endpoint, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	services, ok := c.w.nodes[node]
	if !ok {
		return codec.Endpoint{}, errUnknown
	}
	ep, ok := services[service]
	if !ok {
		return codec.Endpoint{}, fmt.Errorf("%w: %s", errNoService, service)
	}
	return ep, nil
}

func (c *citizen) Advertise(service, endpoint string) error {
	port, own := strings.CutPrefix(endpoint, ":")
	if !own {
		return fmt.Errorf("%q is not a port", endpoint)
	}
	at := c.w.reroute(c.name, service, "127.0.0.1:"+port)
	c.w.change(func() { c.w.nodes[c.name][service] = codec.Endpoint{URL: "tcp://" + at, Instance: c.instance} })
	return nil
}

func (c *citizen) Withdraw(service string) error {
	c.w.change(func() { delete(c.w.nodes[c.name], service) })
	return nil
}

func (c *citizen) Providers(ctx context.Context, service string) iter.Seq[map[string]codec.Endpoint] {
	return func(yield func(map[string]codec.Endpoint) bool) {
		for {
			set := make(map[string]codec.Endpoint)
			c.w.mu.Lock()
			changed := c.w.changed
			for name, services := range maps.All(c.w.nodes) {
				if ep, ok := services[service]; ok {
					set[name] = ep
				}
			}
			c.w.mu.Unlock()
			if !yield(set) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}
