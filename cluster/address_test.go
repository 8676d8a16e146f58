package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseHostPort(t *testing.T) {
	for _, c := range []struct {
		in, host string
		port     int
		fault    string // part of the error
	}{
		{"10.0.0.1:7946", "10.0.0.1", 7946, ""},
		{"10.0.0.1", "10.0.0.1", -1, ""},
		{":7946", "", 7946, ""},
		{"", "", -1, ""},
		{"node-1.example_x.org:0", "node-1.example_x.org", 0, ""},
		{"localhost", "localhost", -1, ""},
		{"::1", "::1", -1, ""},
		{"[::1]", "::1", -1, ""},
		{"[fd00::2]:7946", "fd00::2", 7946, ""},
		{"::", "::", -1, ""},
		{"[::]:7946", "::", 7946, ""},
		{"0.0.0.0:7946", "0.0.0.0", 7946, ""},
		{"::1:7946", "::1:7946", -1, ""}, // an address, whatever was meant
		{"10.0.0.1:70000", "", 0, "port number"},
		{"10.0.0.1:http", "", 0, "port number"},
		{"10.0.0.1:", "", 0, "port number"},
		{"10.0.0.1:+1", "", 0, "port number"},
		{"tcp://10.0.0.1:7946", "", 0, "scheme"},
		{"[::1", "", 0, "closing bracket"},
		{"[::1]7946", "", 0, "after the bracket"},
		{"[10.0.0.1]:7946", "", 0, "IPv6"},
		{"[node]:7946", "", 0, "IPv6"},
		{"fe80::1%eth0", "", 0, "zone"},
		{"[fe80::1%eth0]:7946", "", 0, "zone"},
		{"a:b:c", "", 0, "IPv6"},
		{"10.0.0.300", "", 0, "neither"},
		{"10.0.0", "", 0, "neither"},
		{"no de", "", 0, "host name"},
		{"node\n", "", 0, "host name"},
		{"node/x", "", 0, "host name"},
		{strings.Repeat("a", 254), "", 0, "253"},
	} {
		got, err := parseHostPort(c.in)
		if c.fault != "" {
			var fault *AddressError
			if !errors.As(err, &fault) || fault.Addr != c.in || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%q: error %v, want one about %q", c.in, err, c.fault)
			}
			continue
		}
		if err != nil || got.host != c.host || got.port != c.port {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
	}
}

func FuzzParseHostPort(f *testing.F) {
	for _, s := range []string{"10.0.0.1:7946", "[::1]:7946", "::1", "host", ":0", "[::", "a:b:c", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHostPort(s)
		if err != nil {
			return
		}
		if h.port < -1 || h.port > 65535 || h.ip.Zone() != "" {
			t.Errorf("%q became %+v", s, h)
		}
		if h.ip.IsValid() && h.port >= 0 { // what it means can be written and read again
			again, err := parseHostPort(netip.AddrPortFrom(h.ip, uint16(h.port)).String())
			if err != nil || again.ip != h.ip || again.port != h.port {
				t.Errorf("%q became %+v, then %+v: %v", s, h, again, err)
			}
		}
	})
}

func TestFirstAddress(t *testing.T) {
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, c := range []struct {
		in   []netip.Addr
		want string
	}{
		{addrs("127.0.0.1", "::1", "fe80::1", "169.254.1.1"), "invalid IP"},
		{addrs("127.0.0.1", "2001:db8::1"), "2001:db8::1"},
		{addrs("2001:db8::1", "8.8.8.8"), "8.8.8.8"},
		{addrs("2001:db8::1", "8.8.8.8", "fd00::1"), "fd00::1"},
		{addrs("2001:db8::1", "8.8.8.8", "fd00::1", "172.18.0.5", "10.0.0.1"), "172.18.0.5"},
	} {
		if got := firstAddress(c.in).String(); got != c.want {
			t.Errorf("%v: %s, want %s", c.in, got, c.want)
		}
	}
}

func TestResolve(t *testing.T) {
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "many":
			return []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.2"),
				netip.MustParseAddr("::ffff:10.0.0.2"), netip.MustParseAddr("10.0.0.1")}, nil
		case "none":
			return nil, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	resolve := func(s string) ([]netip.Addr, error) {
		h, err := parseHostPort(s)
		if err != nil {
			t.Fatal(err)
		}
		return h.resolve(context.Background(), lookup)
	}
	want := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	if got, err := resolve("many"); err != nil || !slices.Equal(got, want) {
		t.Errorf("many: %v, %v", got, err)
	}
	if _, err := resolve("none"); err == nil {
		t.Error("a host without addresses is no error")
	}
	var dns *net.DNSError
	if _, err := resolve("unknown"); !errors.As(err, &dns) {
		t.Errorf("unknown: %v", err)
	}
	if got, err := resolve("[::ffff:10.0.0.9]:1"); err != nil || got[0].String() != "10.0.0.9" {
		t.Errorf("mapped: %v, %v", got, err)
	}
}

func TestParseSeeds(t *testing.T) {
	seeds, err := parseSeeds([]string{"a", "10.0.0.1:1", "::1", "a"})
	if err != nil || len(seeds) != 3 || seeds[0].port != DefaultPort || seeds[1].port != 1 || seeds[2].port != DefaultPort {
		t.Errorf("%+v, %v", seeds, err)
	}
	for _, bad := range []string{"", ":1", "a:0", "0.0.0.0:1", "[::]:1", "224.0.0.1", "255.255.255.255:1", "a b", "http://a"} {
		var fault *AddressError
		if _, err := parseSeeds([]string{"good", bad}); !errors.As(err, &fault) || fault.Addr != bad {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := parseSeeds(make([]string, maxSeeds+1)); err == nil {
		t.Error("there is no bound")
	}
}
