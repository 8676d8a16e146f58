//go:build linux

package netns

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

// cluster starts one agent on each host, all bound to the wildcard address and joined to the first.
func cluster(t *testing.T, hosts []*host, bind string) []*agent {
	t.Helper()
	var agents []*agent
	for i, h := range hosts {
		flags := []string{"--bind", bind}
		for _, seed := range hosts {
			if i == 0 || seed == h {
				continue
			}
			flags = append(flags, "--retry-join", seed.ip+":7946")
		}
		agents = append(agents, h.start(t, "node"+strings.TrimPrefix(h.name, "h"), flags...))
	}
	for _, a := range agents {
		a.sees(t, "alive", agents...)
	}
	return agents
}

func everyPair(agents []*agent, do func(from, to *agent)) {
	for _, from := range agents {
		for _, to := range agents {
			if from != to {
				do(from, to)
			}
		}
	}
}

// A node bound to 0.0.0.0 tells others the address of its default route, not that
// of an interface which leads nowhere, and its endpoints have that address too.
func TestAdvertisedAddress(t *testing.T) {
	t.Parallel()
	agents := cluster(t, newNetwork(t, 3), "0.0.0.0:7946")
	everyPair(agents, func(from, to *agent) {
		if got := from.members(t)[to.name].Addr; got != to.ip+":7946" {
			t.Errorf("%s was told that %s is at %s, want %s:7946", from.name, to.name, got, to.ip)
		}
		endpoints(t, from, to)
		from.sends(t, to, "from-"+from.name+"-to-"+to.name)
	})
}

// endpoints fails unless all endpoints of to that from knows are at to's address.
func endpoints(t *testing.T, from, to *agent) {
	t.Helper()
	out, errs, code := from.parley(t, "addr", to.name)
	if code != 0 || !strings.Contains(out, "tcp://") {
		t.Fatalf("addr %s: exit %d: %s%s", to.name, code, out, errs)
	}
	for _, field := range strings.Fields(out) {
		if u, err := url.Parse(field); err == nil && u.Scheme == "tcp" && u.Hostname() != to.ip {
			t.Errorf("%s was told that %s listens on %s, want host %s", from.name, to.name, field, to.ip)
		}
	}
}

// The same over IPv6.
func TestIPv6(t *testing.T) {
	t.Parallel()
	hosts := newNetwork(t, 2)
	one := hosts[0].start(t, "node1", "--bind", "[::]:7946", "--advertise", hosts[0].ip6)
	two := hosts[1].start(t, "node2", "--bind", "[::]:7946", "--advertise", hosts[1].ip6, "--join", "["+hosts[0].ip6+"]:7946")
	one.sees(t, "alive", one, two)
	two.sees(t, "alive", one, two)
	if got, want := one.members(t)["node2"].Addr, "["+hosts[1].ip6+"]:7946"; got != want {
		t.Errorf("node2 is at %s, want %s", got, want)
	}
	one.sends(t, two, "over-six")
	two.sends(t, one, "over-six-back")
}

// A node that was killed and comes back under its name on a host with another address
// is found there.
func TestNewAddress(t *testing.T) {
	t.Parallel()
	agents := cluster(t, newNetwork(t, 3), "0.0.0.0:7946")
	agents[1].kill()
	moved := agents[1].host
	moved.address(t, "10.77.0.22")
	two := moved.start(t, "node2", "--bind", "0.0.0.0:7946", "--retry-join", agents[0].ip+":7946")
	for _, other := range []*agent{agents[0], agents[2]} {
		eventually(t, func() bool {
			m := other.members(t)["node2"]
			return m.Status == "alive" && m.Addr == moved.ip+":7946"
		}, "%s finds node2 at its new address", other.name)
		other.reaches(t, two, "moved-"+other.name)
		endpoints(t, other, two)
		two.sends(t, other, "from-the-new-address")
	}
}

// A host that is cut off is failed for the others and they for it; sending to it says
// so at once. When the cut ends, all are back by themselves.
func TestOneHostCutOff(t *testing.T) {
	t.Parallel()
	agents := cluster(t, newNetwork(t, 3), "0.0.0.0:7946")
	one, two, three := agents[0], agents[1], agents[2]
	three.unplug(t, true)
	one.sees(t, "failed", three)
	two.sees(t, "failed", three)
	three.sees(t, "failed", one, two)
	one.sends(t, two, "without-three")
	if _, errs, code := one.parley(t, "send", "node3", "nobody-hears"); code != 4 || !strings.Contains(errs, "NOT DELIVERED") {
		t.Errorf("send to a failed node: exit %d, %q; want 4 and NOT DELIVERED", code, errs)
	}
	three.unplug(t, false)
	for _, a := range agents {
		a.sees(t, "alive", agents...)
	}
	everyPair(agents, func(from, to *agent) { from.reaches(t, to, "again-from-"+from.name) })
	if strings.Contains(three.out.String(), "nobody-hears") {
		t.Error("node3 got what was reported as not delivered")
	}
}

// When every host is cut from every other for so long that the gossip has forgotten
// its dead, nobody would ever try again by itself; the cluster still heals.
func TestFullPartitionHeals(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	agents := cluster(t, newNetwork(t, 3), "0.0.0.0:7946")
	for _, a := range agents {
		a.cut(t, true)
	}
	everyPair(agents, func(from, to *agent) { from.sees(t, "failed", to) })
	// The profile "local" forgets the dead after 15 s, and there is nothing to see it by.
	time.Sleep(20 * time.Second)
	everyPair(agents, func(from, to *agent) {
		if got := from.members(t)[to.name].Status; got == "alive" {
			t.Errorf("%s sees %s alive across the cut", from.name, to.name)
		}
	})
	for _, a := range agents {
		a.cut(t, false)
	}
	everyPair(agents, func(from, to *agent) { from.sees(t, "alive", to) })
	everyPair(agents, func(from, to *agent) { from.reaches(t, to, "healed-"+from.name+"-"+to.name) })
}
