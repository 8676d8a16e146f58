//go:build linux

package netns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// decoy is an address that every host has on an interface that leads nowhere, as
// hosts with containers or a VPN have: a node must not tell others to use it.
const decoy = "192.168.99.1"

// network is a bridge in a namespace of its own, out of reach of the machine's
// firewall, with the hosts plugged into it.
type network struct {
	bridge string // namespace of the bridge
}

// host is a namespace with one interface to the bridge and the default route there.
type host struct {
	net  *network
	name string
	ns   string
	ip   string // its IPv4 address; the IPv6 address is ip6
	ip6  string
}

var networks atomic.Int32

// newNetwork builds n hosts: h1 at 10.77.0.1 and fd77::1, h2 at 10.77.0.2 and so on.
func newNetwork(t *testing.T, n int) []*host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"ip", "bridge"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here (iproute2): %v", tool, err)
		}
	}
	prefix := fmt.Sprintf("parley%d-%d-", os.Getpid(), networks.Add(1))
	w := &network{bridge: prefix + "bridge"}
	if out, err := exec.Command("ip", "netns", "add", w.bridge).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v: %s", err, bytes.TrimSpace(out))
	}
	t.Cleanup(func() { run(t, "ip", "netns", "del", w.bridge) })
	run(t, "ip", "-n", w.bridge, "link", "add", "br0", "type", "bridge")
	run(t, "ip", "-n", w.bridge, "link", "set", "br0", "up")

	var hosts []*host
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("h%d", i)
		h := &host{net: w, name: name, ns: prefix + name, ip: fmt.Sprintf("10.77.0.%d", i), ip6: fmt.Sprintf("fd77::%d", i)}
		run(t, "ip", "netns", "add", h.ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", h.ns) })
		run(t, "ip", "-n", h.ns, "link", "set", "lo", "up")
		h.configure(t, "link add decoy0 type veth peer name decoy1")
		h.configure(t, "addr add "+decoy+"/24 dev decoy0")
		h.configure(t, "link set decoy0 up")
		h.configure(t, "link set decoy1 up")
		h.configure(t, "link add eth0 type veth peer name "+name+" netns "+w.bridge)
		run(t, "ip", "-n", w.bridge, "link", "set", name, "master", "br0", "up")
		h.configure(t, "link set eth0 up")
		h.address(t, h.ip)
		h.configure(t, "-6 addr add "+h.ip6+"/64 dev eth0 nodad")
		hosts = append(hosts, h)
	}
	return hosts
}

// configure runs ip(8) inside the host.
func (h *host) configure(t *testing.T, args string) {
	t.Helper()
	run(t, "ip", append([]string{"-n", h.ns}, strings.Fields(args)...)...)
}

// address gives the host ip in place of its address.
func (h *host) address(t *testing.T, ip string) {
	t.Helper()
	h.ip = ip
	h.configure(t, "-4 addr flush dev eth0")
	h.configure(t, "addr add "+ip+"/24 dev eth0")
	h.configure(t, "route add default via 10.77.0.254")
}

// cut makes the bridge drop, without a word, what isolated hosts send each other.
// A host that is not isolated reaches all of them.
func (h *host) cut(t *testing.T, isolated bool) {
	t.Helper()
	state := "off"
	if isolated {
		state = "on"
	}
	run(t, "bridge", "-n", h.net.bridge, "link", "set", "dev", h.name, "isolated", state)
}

// unplug takes the host's cable out, or puts it in again.
func (h *host) unplug(t *testing.T, out bool) {
	t.Helper()
	state := "up"
	if out {
		state = "down"
	}
	run(t, "ip", "-n", h.net.bridge, "link", "set", h.name, state)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}
