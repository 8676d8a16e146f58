// Package demo shows the main job in one process: three real nodes on loopback,
// their messages and their end. Every line it prints is something that happened.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

// Options of a demo.
type Options struct {
	Out    io.Writer
	Color  bool         // mark the steps in green
	Logger *slog.Logger // of the nodes
}

// patience bounds each step; all of them together take a few seconds.
const patience = 15 * time.Second

// Run plays the demo and returns nil when every step did what it should. It
// ends all nodes before it returns, also when ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{Options: o, begin: time.Now()}
	defer func() { err = errors.Join(err, d.end()) }()
	d.say("Three nodes on this machine, each with a gossip port and two SP endpoints of its own:\n")
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"start", d.start},
		{"members", d.members},
		{"send", d.send},
		{"request", d.request},
		{"broadcast", d.broadcast},
		{"typo", d.typo},
		{"crash", d.crash},
		{"goodbye", d.goodbye},
	} {
		if err := d.step(ctx, step.title, step.run); err != nil {
			return err
		}
	}
	d.say("\nDone in %.1f s. Next: run one yourself with `parley agent --name node1`.", time.Since(d.begin).Seconds())
	return nil
}

type demo struct {
	Options
	begin time.Time
	nodes []*node // node1, node2, node3
}

// node is what a service that embeds Parley has.
type node struct {
	*cluster.Node
	mail *unicast.Messenger
	all  *broadcast.Broadcaster

	mu    sync.Mutex
	heard []string // what its handlers were given
}

func (d *demo) step(ctx context.Context, title string, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := run(ctx); err != nil {
		return fmt.Errorf("demo: %s: %w", title, err)
	}
	return nil
}

func (d *demo) start(ctx context.Context) error {
	for i := range 3 {
		n, err := d.open(fmt.Sprintf("node%d", i+1))
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
		how := "the first"
		if i > 0 {
			if _, err := n.Join(ctx, d.nodes[0].Addr()); err != nil {
				return err
			}
			how = "joined node1"
		}
		d.say("    %s  at %-15s  %s", n.Name(), n.Addr(), how)
	}
	d.say("")
	return nil
}

func (d *demo) open(name string) (*node, error) {
	n := new(node)
	var err error
	if n.Node, err = cluster.Start(cluster.Config{
		Name: name, Bind: "127.0.0.1:0", Profile: cluster.Local, Logger: d.Logger,
	}); err != nil {
		return nil, err
	}
	if n.mail, err = unicast.Listen(n, unicast.HandlerFunc(n.handle), unicast.Config{Logger: d.Logger}); err != nil {
		return nil, errors.Join(err, n.Node.Close())
	}
	if n.all, err = broadcast.Open(n, n.mail, broadcast.HandlerFunc(n.handleBroadcast), broadcast.Config{Logger: d.Logger}); err != nil {
		return nil, errors.Join(err, n.mail.Close(), n.Node.Close())
	}
	return n, nil
}

func (n *node) handle(_ context.Context, m unicast.Message) ([]byte, error) {
	n.hear(m.From, m.Body)
	return bytes.ToUpper(m.Body), nil
}

func (n *node) handleBroadcast(_ context.Context, m broadcast.Message) error {
	n.hear(m.From, m.Body)
	return nil
}

func (n *node) hear(from string, body []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = append(n.heard, fmt.Sprintf("%s: %s", from, body))
}

func (n *node) hasHeard(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.heard, what)
}

func (d *demo) members(ctx context.Context) error {
	for _, n := range d.nodes {
		for _, other := range d.nodes {
			if err := n.WaitForNode(ctx, other.Name(), unicast.ServiceRep, unicast.ServicePull); err != nil {
				return err
			}
		}
	}
	d.done("members", "node1, node2 and node3 found each other by gossip, %s after the first started", since(d.begin))
	return nil
}

func (d *demo) send(ctx context.Context) error {
	const body = "hello"
	begin := time.Now()
	if err := d.nodes[0].mail.Send(ctx, "node2", "demo", []byte(body)); err != nil {
		return err
	}
	if !d.nodes[1].hasHeard("node1: " + body) {
		return errors.New("acknowledged, but node2's handler has not seen it")
	}
	d.done("send", "node1 -> node2 %q: handled by node2 and acknowledged, %s with connecting", body, since(begin))
	return nil
}

func (d *demo) request(ctx context.Context) error {
	const body = "can you hear me?"
	begin := time.Now()
	reply, err := d.nodes[0].mail.Request(ctx, "node2", "demo", []byte(body))
	if err != nil {
		return err
	}
	if want := strings.ToUpper(body); string(reply) != want {
		return fmt.Errorf("the reply is %q instead of %q", reply, want)
	}
	d.done("request", "node1 -> node2 %q, the reply is %q, %s", body, reply, since(begin))
	return nil
}

func (d *demo) broadcast(ctx context.Context) error {
	const body = "deploy at noon"
	begin := time.Now()
	receipt, err := d.nodes[0].all.Reliable(ctx, "demo", []byte(body))
	if err != nil {
		return err
	}
	for _, n := range d.nodes[1:] {
		if !slices.Contains(receipt.Handled, n.Name()) || !n.hasHeard("node1: "+body) {
			return fmt.Errorf("%s has not handled it: the receipt names %v", n.Name(), receipt.Handled)
		}
	}
	d.done("broadcast", "node1 -> everyone %q: handled by %s, %s", body, strings.Join(receipt.Handled, " and "), since(begin))
	return nil
}

func (d *demo) typo(ctx context.Context) error {
	begin := time.Now()
	err := d.nodes[0].mail.Send(ctx, "node22", "demo", []byte("hello"))
	if !errors.Is(err, cluster.ErrUnknownNode) {
		return fmt.Errorf("a send to node22 ended with %w instead of an unknown node", err)
	}
	d.done("typo", "node1 -> node22 fails after %s, before a byte is sent:", since(begin))
	d.say("               %v", err)
	return nil
}

func (d *demo) crash(ctx context.Context) error {
	begin := time.Now()
	if err := d.nodes[2].kill(); err != nil {
		return err
	}
	for _, n := range d.nodes[:2] {
		if err := n.waitForStatus(ctx, "node3", cluster.Failed); err != nil {
			return err
		}
	}
	d.done("crash", "node3 is killed without a goodbye: node1 and node2 list it as failed after %s", since(begin))
	return nil
}

func (d *demo) goodbye(ctx context.Context) error {
	begin := time.Now()
	leaver := d.nodes[1]
	if err := leaver.Leave(ctx); err != nil {
		return err
	}
	if err := leaver.mail.Shutdown(ctx); err != nil {
		return err
	}
	if err := d.nodes[0].waitForStatus(ctx, "node2", cluster.Left); err != nil {
		return err
	}
	d.done("goodbye", "node2 leaves: node1 lists it as left, not failed, %s", since(begin))
	return nil
}

// kill ends a node as a crash would, as far as others can tell.
func (n *node) kill() error {
	return errors.Join(n.Node.Close(), n.all.Close(), n.mail.Close())
}

func (n *node) waitForStatus(ctx context.Context, name string, want cluster.Status) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	has := func() bool {
		m, ok := n.Member(name)
		return ok && m.Status == want
	}
	events := n.Events(ctx) // from here on; so look at the list after it
	if has() {
		return nil
	}
	for range events {
		if has() {
			return nil
		}
	}
	return fmt.Errorf("%s does not list %s as %s: %w", n.Name(), name, want, context.Cause(ctx))
}

// end closes what still runs.
func (d *demo) end() error {
	var errs []error
	for _, n := range d.nodes {
		errs = append(errs, n.kill())
	}
	return errors.Join(errs...)
}

func (d *demo) done(title, format string, args ...any) {
	mark := "ok"
	if d.Color {
		mark = "\x1b[32mok\x1b[0m"
	}
	d.say("%s  %-9s  %s", mark, title, fmt.Sprintf(format, args...))
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.Out, format+"\n", args...)
}

// since rounds to what a reader can use.
func since(begin time.Time) time.Duration {
	t := time.Since(begin)
	switch {
	case t >= time.Second:
		return t.Round(100 * time.Millisecond)
	case t >= time.Millisecond:
		return t.Round(100 * time.Microsecond)
	}
	return t.Round(time.Microsecond)
}
