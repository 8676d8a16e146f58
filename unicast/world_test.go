package unicast_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// world is a cluster in one map: what one node changes, all see at once.
type world struct {
	mu      sync.Mutex
	nodes   map[string]*place
	changed chan struct{}
	last    uint64
}

type place struct {
	instance uint64
	services map[string]string // URLs
	err      error             // why it cannot be had
}

var (
	errUnknown   = errors.New("unknown node")
	errLeft      = errors.New("node has left")
	errNoService = errors.New("no such service")

	errFailed error = failedError{}
)

type failedError struct{}

func (failedError) Error() string    { return "node has failed" }
func (failedError) NodeFailed() bool { return true }

func newWorld() *world {
	return &world{nodes: make(map[string]*place), changed: make(chan struct{})}
}

// node starts a node under name, anew if there is one.
func (w *world) node(name string) *directory {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	w.nodes[name] = &place{instance: w.last, services: make(map[string]string)}
	return &directory{w: w, name: name, instance: w.last}
}

// change edits what is known of name, and tells everyone.
func (w *world) change(name string, edit func(*place)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	edit(w.nodes[name])
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) url(name, service string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[name].services[service]
}

// directory is what one node sees of the world.
type directory struct {
	w        *world
	name     string
	instance uint64
}

func (d *directory) Name() string     { return d.name }
func (d *directory) Instance() uint64 { return d.instance }
func (d *directory) BindHost() string { return "127.0.0.1" }

func (d *directory) Lookup(node, service string) (codec.Endpoint, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	p := d.w.nodes[node]
	if p == nil {
		return codec.Endpoint{}, errUnknown
	}
	if p.err != nil {
		return codec.Endpoint{}, p.err
	}
	url, ok := p.services[service]
	if !ok {
		return codec.Endpoint{}, fmt.Errorf("%w: %s", errNoService, service)
	}
	return codec.Endpoint{URL: url, Instance: p.instance}, nil
}

func (d *directory) Advertise(service, endpoint string) error {
	port, own := strings.CutPrefix(endpoint, ":")
	if !own {
		return fmt.Errorf("%q is not a port", endpoint)
	}
	d.w.change(d.name, func(p *place) { p.services[service] = "tcp://127.0.0.1:" + port })
	return nil
}

func (d *directory) Withdraw(service string) error {
	d.w.change(d.name, func(p *place) { delete(p.services, service) })
	return nil
}

func (d *directory) Providers(ctx context.Context, service string) iter.Seq[map[string]codec.Endpoint] {
	return func(yield func(map[string]codec.Endpoint) bool) {
		for {
			set := make(map[string]codec.Endpoint)
			d.w.mu.Lock()
			changed := d.w.changed
			names := maps.Clone(d.w.nodes)
			d.w.mu.Unlock()
			for name := range names {
				if ep, err := d.Lookup(name, service); err == nil {
					set[name] = ep
				}
			}
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

// listen starts a node with a Messenger that is closed with the test.
func (w *world) listen(t testing.TB, name string, h unicast.Handler, cfg unicast.Config) *unicast.Messenger {
	t.Helper()
	return listen(t, w.node(name), h, cfg)
}

func listen(t testing.TB, dir unicast.Directory, h unicast.Handler, cfg unicast.Config) *unicast.Messenger {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = silent
	}
	m, err := unicast.Listen(dir, h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// on makes a Handler of f.
func on(f func(ctx context.Context, m unicast.Message) ([]byte, error)) unicast.Handler {
	return unicast.HandlerFunc(f)
}

// echo answers with the body.
var echo = on(func(_ context.Context, m unicast.Message) ([]byte, error) { return m.Body, nil })

// patience bounds what must happen; nothing is asserted about how fast it does.
const patience = 20 * time.Second

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// await receives from ch.
func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("not in %v: %s", patience, what)
		panic("not reached")
	}
}

// wantFailure checks an error of a call.
func wantFailure(t testing.TB, err error, outcome unicast.Outcome, causes ...error) *unicast.Error {
	t.Helper()
	e, ok := errors.AsType[*unicast.Error](err)
	if !ok {
		t.Fatalf("error is %v (%T), want a *unicast.Error", err, err)
	}
	if e.Outcome != outcome {
		t.Errorf("outcome of %q is %v, want %v", err, e.Outcome, outcome)
	}
	for _, cause := range causes {
		if !errors.Is(err, cause) {
			t.Errorf("error %q does not match %q", err, cause)
		}
	}
	return e
}

// block is a Handler that reports each message and holds it until it is let go.
type block struct {
	arrived chan unicast.Message
	let     chan struct{}
}

func newBlock() *block {
	return &block{arrived: make(chan unicast.Message, 10000), let: make(chan struct{})}
}

func (b *block) Handle(ctx context.Context, m unicast.Message) ([]byte, error) {
	b.arrived <- m
	select {
	case <-b.let:
		return m.Body, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
