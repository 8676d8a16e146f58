package cluster

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a condition may take on a machine that is busy with
// other things. What is promised to be quick is shown by the order of events,
// not by the clock.
const patience = 30 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type option func(*Config)

func withConfig(f func(*Config)) option { return f }

func withKey(key string) option { return func(c *Config) { c.Key = []byte(key) } }

func withBind(bind string) option { return func(c *Config) { c.Bind = bind } }

func withEpoch(epoch uint64) option { return func(c *Config) { c.hooks.epoch = epoch } }

func asObserver(c *Config) { c.Observer = true }

// start runs a node on loopback until the test ends.
func start(t testing.TB, name string, options ...option) *Node {
	t.Helper()
	n, err := tryStart(t, name, options...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryStart(t testing.TB, name string, options ...option) (*Node, error) {
	cfg := Config{Name: name, Cluster: testCluster(t), Bind: "127.0.0.1:0", Profile: Local, Logger: testLog(t)}
	for _, o := range options {
		o(&cfg)
	}
	n, err := Start(cfg)
	if err == nil {
		t.Cleanup(func() { _ = n.Close() })
	}
	return n, err
}

// testCluster keeps tests apart that run at the same time and may dial each
// other's ports.
func testCluster(t testing.TB) string {
	return fmt.Sprintf("%x-%d", sha256.Sum256([]byte(t.Name())), os.Getpid())[48:]
}

// testLog writes to the test's log while the test runs.
func testLog(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() { w.ended.Store(true) })
	level := slog.LevelInfo
	if os.Getenv("CLUSTER_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

type testWriter struct {
	t     testing.TB
	ended atomic.Bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	if !w.ended.Load() {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// recorder is a log that can be asked.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: level}))
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, string(p))
	return len(p), nil
}

func (r *recorder) has(parts ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func join(t testing.TB, n *Node, seeds ...*Node) {
	t.Helper()
	addrs := make([]string, len(seeds))
	for i, s := range seeds {
		addrs[i] = s.Addr()
	}
	joined, err := n.Join(testContext(t), addrs...)
	if err != nil || joined != len(seeds) {
		t.Fatalf("%s joined %d of %d seeds: %v", n.Name(), joined, len(seeds), err)
	}
}

// startCluster runs nodes that all know each other.
func startCluster(t testing.TB, names ...string) []*Node {
	t.Helper()
	nodes := make([]*Node, len(names))
	for i, name := range names {
		nodes[i] = start(t, name)
		if i > 0 {
			join(t, nodes[i], nodes[0])
		}
	}
	converge(t, nodes...)
	return nodes
}

// converge waits until every node sees exactly these alive.
func converge(t testing.TB, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, fmt.Sprintf("%s sees all %d", n.Name(), len(nodes)), func() bool {
			alive := make(map[string]uint64)
			for _, m := range n.Members() {
				if m.Status == Alive {
					alive[m.Name] = m.Instance
				}
			}
			if len(alive) != len(nodes) {
				return false
			}
			for _, other := range nodes {
				if alive[other.Name()] != other.Instance() {
					return false
				}
			}
			return true
		})
	}
}

func status(n *Node, name string) Status {
	m, _ := n.Member(name)
	return m.Status
}

func waitStatus(t testing.TB, n *Node, name string, want Status) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s sees %s %s", n.Name(), name, want), func() bool { return status(n, name) == want })
}

// eventLog collects the events of a node.
type eventLog struct {
	mu     sync.Mutex
	events []Event
}

func watch(t testing.TB, n *Node) *eventLog {
	l := &eventLog{}
	ctx, cancel := context.WithCancel(context.Background())
	events := n.Events(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events {
			l.mu.Lock()
			l.events = append(l.events, e)
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// of returns what happened to the node called name, as words.
func (l *eventLog) of(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var words []string
	for _, e := range l.events {
		if e.Member.Name == name {
			words = append(words, string(e.Type))
		}
	}
	return strings.Join(words, " ")
}

// wall is a network that can be cut.
type wall struct {
	mu    sync.Mutex
	sides map[netip.AddrPort]int
	up    bool
}

func newWall() *wall { return &wall{sides: make(map[netip.AddrPort]int)} }

func (w *wall) set(up bool) {
	w.mu.Lock()
	w.up = up
	w.mu.Unlock()
}

// start runs a node on one side of the wall.
func (w *wall) start(t testing.TB, name string, side int, options ...option) *Node {
	t.Helper()
	n := start(t, name, append(options, func(c *Config) {
		c.hooks.cut = func(to netip.AddrPort) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			other, known := w.sides[to]
			return w.up && known && other != side
		}
	})...)
	w.mu.Lock()
	w.sides[n.transport.advertise] = side
	w.mu.Unlock()
	return n
}

// childEnv makes the test binary run one node: "NAME CLUSTER SEED".
const childEnv = "CLUSTER_TEST_CHILD"

func runChild() {
	var name, cluster, seed string
	_, _ = fmt.Sscan(os.Getenv(childEnv), &name, &cluster, &seed)
	n, err := Start(Config{Name: name, Cluster: cluster, Bind: "127.0.0.1:0", Profile: Local, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err == nil {
		_, err = n.Join(context.Background(), seed)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("addr", n.Addr())
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	select {
	case <-term:
		_ = n.Leave(context.Background())
	case <-n.Done():
		fmt.Println("stopped", n.Err())
	}
	os.Exit(0)
}
