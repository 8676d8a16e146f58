package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/agent"
	"github.com/parley-mesh/parley/unicast"
)

// banner says who and where the node is, and how others find it.
func (c *call) banner(a *agent.Agent, cfg agent.Config) {
	info, err := a.Info(c.Context.Context)
	if err != nil {
		return
	}
	encrypted, flag := "no", ""
	if info.Encrypted {
		encrypted, flag = "yes", " --key-file FILE"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "parley agent %s\n", info.Name)
	if info.Cluster != "" {
		fmt.Fprintf(&b, "  %-13s %s\n", "cluster", info.Cluster)
		flag += " --cluster " + info.Cluster
	}
	for _, kv := range [][2]string{
		{"gossip", fmt.Sprintf("%s (profile %s)", info.Addr, info.Profile)},
		{"encrypted", encrypted},
	} {
		fmt.Fprintf(&b, "  %-13s %s\n", kv[0], kv[1])
	}
	for _, s := range slices.Sorted(maps.Keys(info.Services)) {
		fmt.Fprintf(&b, "  %-13s %s\n", s, info.Services[s])
	}
	fmt.Fprintf(&b, "  %-13s %s\n", "socket", info.Socket)
	join := info.Addr
	if info.Profile != string(cluster.LAN) {
		flag += " --profile " + info.Profile
	}
	fmt.Fprintf(&b, "Another node joins with:\n  parley agent --name NAME --join %s%s\n", join, flag)
	if host, _, err := net.SplitHostPort(info.Addr); err == nil && net.ParseIP(host).IsLoopback() {
		b.WriteString("Only this machine can reach it; --bind 0.0.0.0:7946 opens it to others.\n")
	}
	fmt.Fprint(c.Stderr, b.String())
}

// readiness is the ready file, and when it is to be written.
type readiness struct {
	path   string
	when   chan struct{} // has an element when the node is ready
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// enter joins the seeds of --join, and fails if none of them answers. Readiness
// follows once the node has joined, or has nobody to join: there are no seeds,
// or it is one itself. With --retry-join alone that may be later.
func (c *call) enter(ctx context.Context, a *agent.Agent) (*readiness, error) {
	r := &readiness{path: c.String("ready-file"), when: make(chan struct{}, 1)}
	ctx, r.cancel = context.WithCancel(ctx)
	seeds, retry := c.StringSlice("join"), c.StringSlice("retry-join")
	switch {
	case len(seeds) > 0:
		c.say("joining %s", strings.Join(seeds, ", "))
		bounded, cancel := context.WithTimeout(ctx, joinTime)
		defer cancel()
		_, err := a.Join(bounded, seeds)
		if errors.Is(err, cluster.ErrSelf) {
			c.say("nobody to join yet: this node is its own seed")
		} else if err != nil {
			r.cancel()
			return nil, err
		} else {
			c.say("joined: %s alive", counted(a.Cluster.Stats().Alive, "node"))
		}
		r.when <- struct{}{}
	case len(retry) > 0:
		r.wait.Go(func() { // ended by close
			if c.company(ctx, a, retry) {
				r.when <- struct{}{}
			}
		})
	default:
		r.when <- struct{}{}
	}
	return r, nil
}

// company waits until another node is alive, or this node turns out to be one of
// its own seeds.
func (c *call) company(ctx context.Context, a *agent.Agent, seeds []string) bool {
	if isSeed(ctx, a.Cluster.Addr(), seeds) {
		c.say("nobody to join yet: this node is its own seed")
		return true
	}
	// What the others offer changes when somebody comes; it ends with the node.
	for range a.Cluster.Providers(ctx, unicast.ServiceRep) {
		if alive := a.Cluster.Stats().Alive; alive > 1 {
			c.say("joined: %s alive", counted(alive, "node"))
			return true
		}
	}
	return false
}

// isSeed reports whether one of the seeds is the node at addr.
func isSeed(ctx context.Context, addr string, seeds []string) bool {
	self, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	for _, seed := range seeds {
		host, p, err := net.SplitHostPort(seed)
		if err != nil {
			host, p = strings.Trim(seed, "[]"), fmt.Sprint(cluster.DefaultPort)
		}
		if p != port {
			continue
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err == nil && slices.Contains(ips, self) {
			return true
		}
	}
	return false
}

// write makes the ready file, whole or not at all. It has what a script may want
// to know of the node, one thing a line.
func (r *readiness) write(a *agent.Agent) error {
	if r.path == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(r.path), ".ready-*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "name=%s\naddr=%s\npid=%d\n", a.Cluster.Name(), a.Cluster.Addr(), os.Getpid())
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), r.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// close ends the waiting, and takes the ready file away.
func (r *readiness) close() {
	r.cancel()
	r.wait.Wait()
	if r.path != "" {
		_ = os.Remove(r.path)
	}
}
