package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-mesh/parley/codec"
)

func TestBadConfig(t *testing.T) {
	t.Parallel()
	tags := make(map[string]string)
	for i := range 10 {
		tags[fmt.Sprintf("tag%d", i)] = strings.Repeat("x", 100)
	}
	for _, c := range []struct {
		field string
		cfg   Config
		text  string
	}{
		{"Name", Config{}, "empty"},
		{"Name", Config{Name: "a~b"}, "~"},
		{"Name", Config{Name: strings.Repeat("a", 64)}, "64 bytes"},
		{"Profile", Config{Name: "a", Profile: "moon"}, "moon"},
		{"Key", Config{Name: "a", Key: make([]byte, 15)}, "15 bytes"},
		{"MaxMembers", Config{Name: "a", MaxMembers: -1}, "-1"},
		{"Bind", Config{Name: "a", Bind: "tcp://x"}, "scheme"},
		{"Bind", Config{Name: "a", Bind: "host.invalid:1"}, "host"},
		{"Bind", Config{Name: "a", Bind: "224.0.0.1:0"}, "many hosts"},
		{"Advertise", Config{Name: "a", Bind: "127.0.0.1:0", Advertise: "0.0.0.0"}, "wildcard"},
		{"Advertise", Config{Name: "a", Bind: "127.0.0.1:0", Advertise: ":1"}, "no host"},
		{"Advertise", Config{Name: "a", Bind: "127.0.0.1:0", Advertise: "10.0.0.1:0"}, "port 0"},
		{"Advertise", Config{Name: "a", Bind: "127.0.0.1:0", Advertise: "host.invalid"}, "host"},
		{"RetryJoin", Config{Name: "a", RetryJoin: []string{"x:y"}}, "x:y"},
		{"Tags", Config{Name: "a", Tags: tags}, "512"},
		{"Tags", Config{Name: "a", Tags: map[string]string{"a b": ""}}, "tag key"},
	} {
		t.Run(c.field+"/"+c.text, func(t *testing.T) {
			t.Parallel()
			c.cfg.Logger = testLog(t)
			c.cfg.hooks.lookup = lookupNothing
			n, err := Start(c.cfg)
			if err == nil {
				_ = n.Close()
			}
			var fault *ConfigError
			if !errors.As(err, &fault) || fault.Field != c.field || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error is %v", err)
			}
		})
	}
	var limit *codec.LimitError
	if _, err := Start(Config{Name: "a", Tags: tags}); !errors.As(err, &limit) || limit.Limit != codec.MaxMetadata {
		t.Errorf("tags that do not fit: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	first := start(t, "node1")
	_, err := tryStart(t, "node2", withBind(first.Addr()))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), first.Addr()) || !strings.Contains(err.Error(), "another port") {
		t.Errorf("error is %v", err)
	}
	// A port that only UDP has in use is as bad, and nothing stays open of it.
	udp, err := net.ListenPacket("udp", ownHost()+":0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tryStart(t, "node2", withBind(udp.LocalAddr().String())); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "UDP port") {
		t.Errorf("error is %v", err)
	}
	addr := udp.LocalAddr().String()
	_ = udp.Close()
	start(t, "node2", withBind(addr))
	if _, err = tryStart(t, "node3", withBind("192.0.2.77:0")); !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "no address of this machine") {
		t.Errorf("error is %v", err)
	}
}

func TestBindAndAdvertise(t *testing.T) {
	t.Parallel()
	free := func() uint16 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	for _, c := range []struct {
		name            string
		bind, advertise string
		bindHost        string
		host            string // that others are told
		port            uint16 // 0: the one that is bound
	}{
		{"loopback", "127.0.0.1:0", "", "127.0.0.1", "127.0.0.1", 0},
		{"localhost", "localhost:0", "", "127.0.0.1", "127.0.0.1", 0},
		{"explicit", "127.0.0.1:0", "10.1.2.3", "127.0.0.1", "10.1.2.3", 0},
		{"explicit port", "127.0.0.1:0", "10.1.2.3:999", "127.0.0.1", "10.1.2.3", 999},
		{"host name", "0.0.0.0:0", "localhost:999", "0.0.0.0", "127.0.0.1", 999},
		{"IPv6", "127.0.0.1:0", "fd00::9", "127.0.0.1", "fd00::9", 0},
		{"no host", fmt.Sprintf(":%d", free()), "127.0.0.2", "0.0.0.0", "127.0.0.2", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "node1", func(cfg *Config) { cfg.Bind, cfg.Advertise = c.bind, c.advertise })
			addr := netip.MustParseAddrPort(n.Addr())
			port := c.port
			if port == 0 {
				port = n.transport.bound.Port()
			}
			if n.BindHost() != c.bindHost || addr.Addr().String() != c.host || addr.Port() != port || port == 0 {
				t.Errorf("bound to %s, advertises %s", n.BindHost(), addr)
			}
			if err := n.Advertise("mail", ":1234"); err != nil {
				t.Fatal(err)
			}
			if e, err := n.Lookup("node1", "mail"); err != nil || e.URL != "tcp://"+net.JoinHostPort(c.host, "1234") {
				t.Errorf("endpoint is %v, %v", e, err)
			}
		})
	}
}

// TestWildcard: what a node that listens everywhere tells others must work for them.
func TestWildcard(t *testing.T) {
	t.Parallel()
	for _, bind := range []string{"0.0.0.0:0", "[::]:0"} {
		t.Run(bind, func(t *testing.T) {
			t.Parallel()
			log := &recorder{}
			a, err := tryStart(t, "node1", withBind(bind), func(c *Config) { c.Logger = log.logger(-4) })
			if err != nil {
				t.Skipf("cannot listen on %s: %v", bind, err)
			}
			addr := netip.MustParseAddrPort(a.Addr())
			if hostFault(addr.Addr()) != "" || addr.Port() == 0 {
				t.Fatalf("advertises %s", addr)
			}
			if addr.Addr().IsLoopback() {
				if !log.has("WARN", "other hosts cannot reach this node") {
					t.Error("nobody was warned of the loopback address")
				}
				t.Skip("this machine has no address but loopback")
			}
			b := start(t, "node2", withBind(bind))
			join(t, b, a)
			converge(t, a, b)
			if err := a.Advertise("mail", ":1234"); err != nil {
				t.Fatal(err)
			}
			if err := b.WaitForNode(testContext(t), "node1", "mail"); err != nil {
				t.Fatal(err)
			}
			if e, _ := b.Lookup("node1", "mail"); e.URL != "tcp://"+netip.AddrPortFrom(addr.Addr(), 1234).String() {
				t.Errorf("endpoint is %v", e)
			}
		})
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	a, err := tryStart(t, "node1", withBind("[::1]:0"))
	if err != nil {
		t.Skipf("no IPv6 loopback: %v", err)
	}
	b := start(t, "node2", withBind("::1"), func(c *Config) { c.Bind = "[::1]:0" })
	join(t, b, a)
	converge(t, a, b)
	if !strings.HasPrefix(a.Addr(), "[::1]:") || a.BindHost() != "::1" {
		t.Errorf("advertises %s, bound to %s", a.Addr(), a.BindHost())
	}
}

func TestEpochFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "for", "it")
	path := filepath.Join(dir, epochFile)
	log := &recorder{}
	next := func(now uint64) uint64 {
		t.Helper()
		epoch, err := nextEpoch(dir, now, log.logger(0))
		if err != nil {
			t.Fatal(err)
		}
		return epoch
	}
	for i, c := range []struct{ now, want uint64 }{
		{1000, 1000},
		{2000, 2000},
		{2000, 2001}, // started again within the millisecond
		{500, 2002},  // the clock went backwards
		{3000, 3000},
	} {
		if got := next(c.now); got != c.want {
			t.Errorf("%d: epoch is %d, want %d", i, got, c.want)
		}
	}
	for _, damage := range []string{"", "3000", "parley-epoch 1\n3000", "parley-epoch 1\nx\n", "parley-epoch 2\n1\n", "parley-epoch 1\n18446744073709551615\n", "\x00\x00\x00\x00"} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := next(4000); got != 4000 {
			t.Errorf("%q: epoch is %d", damage, got)
		}
		if got := next(1); got != 4001 {
			t.Errorf("%q: the file did not heal: epoch is %d", damage, got)
		}
	}
	if !log.has("WARN", "set aside", path) {
		t.Error("nobody was warned")
	}
	aside, _ := filepath.Glob(path + ".damaged-*")
	temporary, _ := filepath.Glob(path + ".tmp-*")
	if len(aside) == 0 || len(temporary) != 0 {
		t.Errorf("set aside: %v, left over: %v", aside, temporary)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, "node1", withConfig(func(c *Config) { c.DataDir = dir })); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a directory in the place of the file: %v", err)
	}
}

// TestEpochGrows holds what an operator sees of it.
func TestEpochGrows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := withConfig(func(c *Config) { c.DataDir = dir })
	a := start(t, "node1", withEpoch(5000), data)
	_ = a.Close()
	b := start(t, "node1", withEpoch(100), data)
	if a.Epoch() != 5000 || b.Epoch() != 5001 {
		t.Errorf("epochs are %d and %d", a.Epoch(), b.Epoch())
	}
}
