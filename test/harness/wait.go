package harness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

// Eventually waits until cond holds. It fails the test when that takes longer than
// timeout, which should be generous: a test that passes does not wait for it.
func Eventually(t testing.TB, timeout time.Duration, cond func() bool, msg string, args ...any) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", timeout, fmt.Sprintf(msg, args...))
		}
		time.Sleep(pause)
	}
}

// WaitConverged waits until every one of the nodes lists exactly these as alive,
// and finds the services of their present lives. It names what is missing when
// that takes longer than two minutes, which only large clusters ever need:
// memberlist's gossip misses a pair now and then, and push/pull mends it slowly.
func WaitConverged(t testing.TB, nodes ...*Node) {
	t.Helper()
	const timeout = 2 * time.Minute
	if !converged(nodes, timeout) {
		t.Fatalf("not converged within %v:\n%s", timeout, strings.Join(differences(nodes), "\n"))
	}
}

// converged waits for it and reports whether it came about in time.
func converged(nodes []*Node, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for pause := 5 * time.Millisecond; len(differences(nodes)) > 0; pause = min(2*pause, 200*time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// differences tells what the nodes see otherwise than it is.
func differences(nodes []*Node) (all []string) {
	for _, n := range nodes {
		all = append(all, seesAll(n, nodes)...)
	}
	return all
}

// seesAll tells what n sees otherwise than that exactly these nodes are there.
func seesAll(n *Node, nodes []*Node) (wrong []string) {
	var want, alive []string
	for _, other := range nodes {
		want = append(want, other.Name)
	}
	slices.Sort(want)
	for _, m := range n.Cluster.Members() {
		if m.Status == cluster.Alive {
			alive = append(alive, m.Name)
		}
	}
	if !slices.Equal(alive, want) {
		return []string{fmt.Sprintf("%s sees %v alive, not %v", n.Name, alive, want)}
	}
	for _, other := range nodes {
		if other.opts.NoMailbox != nil && other.opts.NoMailbox(other.Name) {
			continue
		}
		for _, service := range []string{unicast.ServiceRep, unicast.ServicePull} {
			e, err := n.Cluster.Lookup(other.Name, service)
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %v", n.Name, err))
			} else if e.Instance != other.Cluster.Instance() {
				wrong = append(wrong, fmt.Sprintf("%s finds an earlier life of %s", n.Name, other.Name))
			}
		}
	}
	return wrong
}

// WaitStatus waits until n sees the node named name in a status.
func WaitStatus(t testing.TB, n *Node, name string, want cluster.Status) {
	t.Helper()
	var m cluster.Member
	var known bool
	deadline := time.Now().Add(time.Minute)
	for {
		if m, known = n.Cluster.Member(name); known && m.Status == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s sees %s as %q (known: %v) for a minute, not %q", n.Name, name, m.Status, known, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
