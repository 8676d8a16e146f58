package broadcast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/parley-mesh/parley/codec"
)

// network is a cluster in memory. Gossip goes to some members at random, may be
// lost and arrives out of order; links can be cut. Exchanges of state (push/pull)
// happen when the test asks for one.
type network struct {
	t      *testing.T
	copies int                    // of one Gossip call, to members at random; 0: to all
	loss   float64                // share of the copies that are lost
	cut    func(a, b string) bool // nil: nothing is cut

	mu    sync.Mutex
	rand  *rand.Rand
	nodes map[string]*fakeNode
	order []string
}

func newNetwork(t *testing.T) *network {
	return &network{t: t, rand: rand.New(rand.NewPCG(1, 2)), nodes: make(map[string]*fakeNode)}
}

// fakeNode is one member: the Gossip and the Sender of a Broadcaster.
type fakeNode struct {
	net      *network
	name     string
	instance uint64
	all      *Broadcaster
	got      *recorder

	mailbox bool // fixed before open

	mu       sync.Mutex
	budget   error // what Gossip answers
	down     bool
	inbox    [][]byte
	gossiped int // Gossip calls, relays included
	arrived  chan struct{}
	receive  func([]byte)
	state    func() []byte
	merge    func([]byte, bool)
	fresh    bool
	reserved func(context.Context, string, []byte) ([]byte, error)

	pumping sync.WaitGroup
	stop    chan struct{}
}

var (
	errDown       = errors.New("node has failed")
	errNoListener = errors.New("no listener")
)

// remoteError is how the fake overlay reports what the other side's function returned.
type remoteError struct {
	node   string
	status codec.Status
	text   string
}

func (e *remoteError) Error() string { return fmt.Sprintf("%s: %v: %s", e.node, e.status, e.text) }

// add starts a member with a Broadcaster whose handler is h (nil: a recorder).
func (n *network) add(name string, h Handler, cfg Config) *fakeNode {
	n.t.Helper()
	f := n.member(name)
	if h == nil {
		h = f.got
	}
	f.open(h, cfg)
	return f
}

// member adds a member without a Broadcaster.
func (n *network) member(name string) *fakeNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &fakeNode{
		net: n, name: name, instance: n.rand.Uint64() | 1, got: &recorder{},
		mailbox: true, fresh: true, arrived: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if n.nodes[name] == nil {
		n.order = append(n.order, name)
	}
	n.nodes[name] = f
	f.pumping.Go(f.pump)
	n.t.Cleanup(f.close)
	return f
}

func (f *fakeNode) open(h Handler, cfg Config) {
	f.net.t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	var err error
	if f.all, err = Open(f, f, h, cfg); err != nil {
		f.net.t.Fatal(err)
	}
}

func (f *fakeNode) close() {
	if f.all != nil {
		f.all.Close()
	}
	f.mu.Lock()
	defer f.pumping.Wait()
	defer f.mu.Unlock()
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
}

// reach is the other member, if messages get from f to it.
func (f *fakeNode) reach(name string) (*fakeNode, bool) {
	f.net.mu.Lock()
	defer f.net.mu.Unlock()
	to := f.net.nodes[name]
	if to == nil || to.isDown() || f.isDown() || f.net.cut != nil && f.net.cut(f.name, name) {
		return nil, false
	}
	return to, true
}

func (f *fakeNode) isDown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

func (f *fakeNode) setDown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
}

func (f *fakeNode) peers() []string {
	f.net.mu.Lock()
	defer f.net.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.net.order), func(name string) bool {
		return name == f.name || f.net.nodes[name].isDown()
	})
}

func (f *fakeNode) Name() string     { return f.name }
func (f *fakeNode) Instance() uint64 { return f.instance }

func (f *fakeNode) Gossip(payload []byte, relay bool) error {
	f.mu.Lock()
	f.gossiped++
	err := f.budget
	f.mu.Unlock()
	if err != nil {
		return err
	}
	peers := f.peers()
	f.net.mu.Lock()
	f.net.rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	if f.net.copies > 0 {
		peers = peers[:min(f.net.copies, len(peers))]
	}
	peers = slices.DeleteFunc(peers, func(string) bool { return f.net.rand.Float64() < f.net.loss })
	f.net.mu.Unlock()
	for _, name := range peers {
		if to, ok := f.reach(name); ok {
			to.post(payload)
		}
	}
	return nil
}

// post puts a copy into the inbox, somewhere.
func (f *fakeNode) post(payload []byte) {
	f.net.mu.Lock()
	at := f.net.rand.Float64()
	f.net.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inbox = slices.Insert(f.inbox, int(at*float64(len(f.inbox)+1)), bytes.Clone(payload))
	select {
	case f.arrived <- struct{}{}:
	default:
	}
}

// pump hands over what arrives, on one goroutine, as the cluster does.
func (f *fakeNode) pump() {
	for {
		f.mu.Lock()
		if len(f.inbox) > 0 && f.receive != nil {
			payload, receive := f.inbox[0], f.receive
			f.inbox = f.inbox[1:]
			f.mu.Unlock()
			receive(payload)
			continue
		}
		f.mu.Unlock()
		select {
		case <-f.arrived:
		case <-f.stop:
			return
		}
	}
}

func (f *fakeNode) AttachGossip(receive func([]byte), state func() []byte, merge func([]byte, bool)) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.receive != nil {
		return nil, errors.New("gossip is attached already")
	}
	f.receive, f.state, f.merge = receive, state, merge
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.receive, f.state, f.merge = nil, nil, nil
	}, nil
}

// exchange is a push/pull between two members; false when they are cut off.
func (f *fakeNode) exchange(name string) bool {
	to, ok := f.reach(name)
	if !ok {
		return false
	}
	ours, theirs := f.state(), to.state()
	to.mergeFrom(ours)
	f.mergeFrom(theirs)
	return true
}

func (f *fakeNode) mergeFrom(state []byte) {
	f.mu.Lock()
	fresh, merge := f.fresh, f.merge
	f.fresh = false
	f.mu.Unlock()
	merge(bytes.Clone(state), fresh)
}

func (f *fakeNode) Recipients(service string) map[string]bool {
	if service != "unicast-rep" {
		panic("asked for service " + service)
	}
	r := make(map[string]bool)
	for _, name := range f.peers() {
		if to, ok := f.reach(name); ok {
			r[name] = to.mailbox
		}
	}
	return r
}

// WaitForNode knows this node only, and does not wait.
func (f *fakeNode) WaitForNode(ctx context.Context, node string, services ...string) error {
	if node != f.name || !slices.Equal(services, []string{"unicast-rep"}) {
		panic(fmt.Sprint("waits for ", node, services))
	}
	if f.mailbox {
		return nil
	}
	return context.Cause(ctx)
}

func (f *fakeNode) SendReliable(ctx context.Context, node string, payload []byte) error {
	to, ok := f.reach(node)
	if !ok {
		return errDown
	}
	to.post(payload)
	return nil
}

func (f *fakeNode) Reserve(topic string, fn func(context.Context, string, []byte) ([]byte, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fn != nil && f.reserved != nil {
		return errors.New("topic is reserved already")
	}
	f.reserved = fn
	return nil
}

func (f *fakeNode) SendReserved(ctx context.Context, node, topic string, body []byte) error {
	to, ok := f.reach(node)
	if !ok {
		return errDown
	}
	to.mu.Lock()
	fn := to.reserved
	to.mu.Unlock()
	if fn == nil || topic != "$broadcast" {
		return errNoListener
	}
	answer := make(chan error, 1)
	f.pumping.Go(func() {
		_, err := fn(ctx, f.name, bytes.Clone(body))
		answer <- err
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-answer:
		if err == nil {
			return nil
		}
		status := codec.StatusHandlerError
		var s interface{ ReplyStatus() codec.Status }
		if errors.As(err, &s) {
			status = s.ReplyStatus()
		}
		return &remoteError{node, status, err.Error()}
	}
}

// recorder is a Handler that keeps what it gets.
type recorder struct {
	mu   sync.Mutex
	msgs []Message
}

func (r *recorder) HandleBroadcast(_ context.Context, m Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = append(r.msgs, m)
	return nil
}

// bodies returns the bodies, sorted.
func (r *recorder) bodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s []string
	for _, m := range r.msgs {
		s = append(s, string(m.Body))
	}
	slices.Sort(s)
	return s
}

func (r *recorder) last() Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.msgs[len(r.msgs)-1]
}
