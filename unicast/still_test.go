package unicast

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/parley-mesh/parley/codec"
)

// still is a cluster in which nobody moves or fails.
type still struct {
	mu sync.RWMutex
	at map[linkKey]codec.Endpoint
}

func newStill() *still { return &still{at: make(map[linkKey]codec.Endpoint)} }

// stillNode is what one of its nodes sees.
type stillNode struct {
	*still
	name string
}

func (s *still) node(name string) Directory { return stillNode{s, name} }

func (n stillNode) Name() string     { return n.name }
func (n stillNode) Instance() uint64 { return uint64(n.name[len(n.name)-1]) }
func (n stillNode) BindHost() string { return "127.0.0.1" }

func (n stillNode) Lookup(node, service string) (codec.Endpoint, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if ep, ok := n.at[linkKey{node, service}]; ok {
		return ep, nil
	}
	return codec.Endpoint{}, errors.New("unknown node")
}

func (n stillNode) Advertise(service, endpoint string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[linkKey{n.name, service}] = codec.Endpoint{URL: "tcp://127.0.0.1" + endpoint, Instance: n.Instance()}
	return nil
}

func (n stillNode) Withdraw(string) error { return nil }

func (n stillNode) Providers(ctx context.Context, _ string) iter.Seq[map[string]codec.Endpoint] {
	return func(func(map[string]codec.Endpoint) bool) { <-ctx.Done() }
}
