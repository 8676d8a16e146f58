// Package harness starts clusters for tests. Each [Node] is a whole node inside the
// test: the cluster member, its mailbox and its broadcaster on loopback, put together
// as a program would.
//
//	nodes := harness.Start(t, 3, harness.Options{})
//	err := nodes[0].Mail.Send(t.Context(), "node2", "topic", []byte("hello"))
//	nodes[1].Kill()
//	harness.WaitConverged(t, nodes[0], nodes[2])
//
// Each [Process] is a node that runs as a process of its own:
//
//	node1 := harness.Spawn(t, "node1")
//	node2 := harness.Spawn(t, "node2", "--join", node1.Addr())
//	harness.WaitProcesses(t, node1, node2)
//	node1.Must("send", "node2", "hello")
//	node2.Kill()
//	node1.WaitStatus("node2", "failed")
//
// Everything is closed when the test ends, and what the nodes logged is shown
// if it failed. Clusters have names of their own, so that tests do not meet which
// run on one machine at the same time.
package harness

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

// Options of a cluster. The zero value is good.
type Options struct {
	Prefix    string                              // of the names; default "node", so they are node1 to nodeN
	Profile   cluster.Profile                     // default cluster.Local
	Key       []byte                              // gossip key
	Mail      func(node string) unicast.Handler   // what each node does with unicast; default: see Echo
	Cast      func(node string) broadcast.Handler // what each node does with broadcasts, beside keeping them; default: nothing
	NoMailbox func(node string) bool              // nodes that only send, and offer no endpoint
	Cluster   func(*cluster.Config)               // last changes to each node's configuration
	Unicast   unicast.Config
	Broadcast broadcast.Config
}

// Echo is the default unicast handler: it replies with the body, and fails on the
// topic "fail" with the body as the error's text.
var Echo = unicast.HandlerFunc(func(_ context.Context, m unicast.Message) ([]byte, error) {
	if m.Topic == "fail" {
		return nil, errors.New(string(m.Body))
	}
	return m.Body, nil
})

// Node is one whole node.
type Node struct {
	Name    string
	Cluster *cluster.Node
	Mail    *unicast.Messenger
	Cast    *broadcast.Broadcaster

	t    testing.TB
	opts Options
	kin  *kin
	log  *Log

	mu    sync.Mutex
	mails []unicast.Message
	casts []broadcast.Message
	gone  bool
}

// kin are the nodes of one cluster, so that one that comes back finds the others.
type kin struct {
	cluster string // its name

	mu    sync.Mutex
	nodes []*Node
}

func (k *kin) add(n *Node) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodes = append(k.nodes, n)
}

// seeds are the gossip addresses of up to three live nodes other than n.
func (k *kin) seeds(n *Node) (addrs []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.nodes {
		if other != n && !other.isGone() && len(addrs) < 3 {
			addrs = append(addrs, other.Cluster.Addr())
		}
	}
	return addrs
}

// Start starts n nodes named node1 to nodeN on free loopback ports, joins them
// and waits until they have converged. When many join at once, gossip may miss a
// pair, which takes push/pull a minute to mend; Start joins such nodes again.
//
// The name of the cluster is another for each call. For clusters that are to meet
// later, set it in Options.Cluster.
func Start(t testing.TB, n int, opts Options) []*Node {
	t.Helper()
	k := &kin{cluster: rand.Text()[:8]}
	nodes := make([]*Node, n)
	prefix := cmp.Or(opts.Prefix, "node")
	for i := range nodes {
		nodes[i] = start(t, fmt.Sprint(prefix, i+1), k, opts)
	}
	// One after the other would do; side by side is how a real cluster comes up.
	var joins sync.WaitGroup
	for _, node := range nodes[1:] {
		joins.Go(func() { node.join(nodes[0].Cluster.Addr()) })
	}
	joins.Wait()
	for i := 1; i < 5 && !converged(nodes, 5*time.Second); i++ {
		for j, node := range nodes {
			if seesAll(node, nodes) != nil {
				_ = node.tryJoin(nodes[(j+i)%n].Cluster.Addr()) // without it, push/pull will
			}
		}
	}
	WaitConverged(t, nodes...)
	return nodes
}

// Add starts one more node of n's cluster and joins it. It does not wait for the
// others to see it.
func (n *Node) Add(name string, opts Options) *Node {
	n.t.Helper()
	added := start(n.t, name, n.kin, opts)
	added.join(n.kin.seeds(added)...)
	return added
}

func start(t testing.TB, name string, k *kin, opts Options) *Node {
	t.Helper()
	n := &Node{Name: name, t: t, opts: opts, kin: k, log: NewLog(t, name)}
	profile := cmp.Or(opts.Profile, cluster.Local)
	cfg := cluster.Config{Name: name, Cluster: k.cluster, Bind: "127.0.0.1:0", Profile: profile, Key: opts.Key, Logger: n.log.Logger}
	if opts.Cluster != nil {
		opts.Cluster(&cfg)
	}
	var err error
	if n.Cluster, err = cluster.Start(cfg); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(n.Kill) // before anything else can fail
	mail := n.handleMail()
	if opts.NoMailbox != nil && opts.NoMailbox(name) {
		mail = nil
	}
	opts.Unicast.Logger, opts.Broadcast.Logger = n.log.Logger, n.log.Logger
	if n.Mail, err = unicast.Listen(n.Cluster, mail, opts.Unicast); err != nil {
		t.Fatalf("open the mailbox of %s: %v", name, err)
	}
	if n.Cast, err = broadcast.Open(n.Cluster, n.Mail, n.handleCast(), opts.Broadcast); err != nil {
		t.Fatalf("open the broadcaster of %s: %v", name, err)
	}
	k.add(n)
	return n
}

func (n *Node) tryJoin(seeds ...string) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	_, err := n.Cluster.Join(ctx, seeds...)
	return err
}

// join joins the seeds. On a machine with little to spare the first try may fail.
func (n *Node) join(seeds ...string) {
	n.t.Helper()
	err := n.tryJoin(seeds...)
	for range 3 {
		if err == nil {
			return
		}
		n.t.Logf("%s: join %v: %v", n.Name, seeds, err)
		err = n.tryJoin(seeds...)
	}
	if err != nil {
		n.t.Errorf("%s: join %v: %v", n.Name, seeds, err)
	}
}

// handleMail keeps every message and hands it to the handler of the options.
func (n *Node) handleMail() unicast.Handler {
	var next unicast.Handler = Echo
	if n.opts.Mail != nil {
		next = n.opts.Mail(n.Name)
	}
	return unicast.HandlerFunc(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		n.mu.Lock()
		n.mails = append(n.mails, m)
		n.mu.Unlock()
		return next.Handle(ctx, m)
	})
}

// handleCast does the same for broadcasts.
func (n *Node) handleCast() broadcast.Handler {
	var next broadcast.Handler
	if n.opts.Cast != nil {
		next = n.opts.Cast(n.Name)
	}
	return broadcast.HandlerFunc(func(ctx context.Context, m broadcast.Message) error {
		n.mu.Lock()
		n.casts = append(n.casts, m)
		n.mu.Unlock()
		if next == nil {
			return nil
		}
		return next.HandleBroadcast(ctx, m)
	})
}

// Mails returns what came by unicast, in order of arrival.
func (n *Node) Mails() []unicast.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]unicast.Message(nil), n.mails...)
}

// Casts returns what came by broadcast, in order of arrival.
func (n *Node) Casts() []broadcast.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]broadcast.Message(nil), n.casts...)
}

func (n *Node) isGone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone
}

// leave reports whether the caller is the one who takes the node away.
func (n *Node) leave() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return false
	}
	n.gone = true
	return true
}

// Kill takes the node away without a goodbye, as a crash would: it falls silent
// first, and only then is the rest closed. It returns when the node is gone; again
// it does nothing.
func (n *Node) Kill() {
	if !n.leave() {
		return
	}
	n.stop(n.Cluster.Close())
}

// Leave takes the node away as an operator would: it says goodbye, answers what
// it has accepted, and stops.
func (n *Node) Leave() {
	n.t.Helper()
	if !n.leave() {
		n.t.Fatalf("%s is gone already", n.Name)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	n.stop(n.Cluster.Leave(ctx), n.Mail.Shutdown(ctx), n.Cluster.Close())
}

// stop closes the rest: the links first, so that nobody is told more.
func (n *Node) stop(errs ...error) {
	n.t.Helper()
	if n.Mail != nil {
		errs = append(errs, n.Mail.Close())
	}
	if n.Cast != nil {
		errs = append(errs, n.Cast.Close())
	}
	if err := errors.Join(errs...); err != nil {
		n.t.Errorf("%s: stop: %v", n.Name, err)
	}
}

// Restart kills the node, if it is there, starts another one under its name on
// other ports, and joins it to the others. It does not wait for them to see it.
func (n *Node) Restart() *Node {
	n.t.Helper()
	n.Kill()
	return n.Add(n.Name, n.opts)
}
