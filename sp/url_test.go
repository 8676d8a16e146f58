package sp

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url    string
		listen bool
		want   string // "" with a reason
		reason string
	}{
		{url: "tcp://127.0.0.1:7950", want: "127.0.0.1:7950"},
		{url: "tcp://node2.example.org:1", want: "node2.example.org:1"},
		{url: "tcp://my_host-2:65535", want: "my_host-2:65535"},
		{url: "tcp://[::1]:7950", want: "[::1]:7950"},
		{url: "tcp://[fe80::1%eth0]:7950", want: "[fe80::1%eth0]:7950"},
		{url: "tcp://*:7950", listen: true, want: ":7950"},
		{url: "tcp://:0", listen: true, want: ":0"},
		{url: "tcp://[::]:0", listen: true, want: "[::]:0"},
		{url: "tcp://localhost:0", listen: true, want: "localhost:0"},

		{url: "tls+tcp://127.0.0.1:7950", want: "127.0.0.1:7950"},
		{url: "tls+tcp://*:0", listen: true, want: ":0"},

		{url: "", reason: "no scheme"},
		{url: "127.0.0.1:7950", reason: "no scheme"},
		{url: "TCP://127.0.0.1:1", reason: `scheme "TCP" is not supported; those known here are tcp, tls+tcp`},
		{url: "quic://x", reason: `scheme "quic" is not supported`},
		{url: "parley+tcp://127.0.0.1:1", reason: "use tcp"},
		{url: "tcp://", reason: "missing port"},
		{url: "tcp://host", reason: "missing port"},
		{url: "tcp://host:", reason: "missing port"},
		{url: "tcp://[::1]", reason: "missing port"},
		{url: "tcp://::1:7950", reason: "too many colons"},
		{url: "tcp://[nonsense:]:1", reason: "not an IPv6 address"},
		{url: "tcp://[fe80::1%eth0\n]:1", reason: "character"},
		{url: "tcp://host:http", reason: `port "http" is not a number`},
		{url: "tcp://host:+1", reason: "is not a number"},
		{url: "tcp://host:65536", reason: "is not a number up to 65535"},
		{url: "tcp://host:80/path", reason: "is not a number"},
		{url: "tcp://host:0", reason: "port 0 cannot be dialed"},
		{url: "tcp://:7950", reason: "missing host"},
		{url: "tcp://*:7950", reason: "character"},
		{url: "tcp://user@host:1", reason: "character"},
		{url: "tcp://ho st:1", reason: "character"},
		{url: "tcp://host\n:1", reason: "character"},
		{url: "tcp://" + strings.Repeat("a", 400) + ":1", reason: "too long"},
	} {
		var cfg *tls.Config
		if strings.HasPrefix(c.url, "tls+tcp:") {
			cfg = &tls.Config{}
		}
		a, err := parseURL(c.url, c.listen, cfg)
		got := a.rest
		if c.want != "" {
			if got != c.want || err != nil || a.foreign || a.scheme == Scheme != (cfg == nil) {
				t.Errorf("%q: got %+v, %v; want %q", c.url, a, err, c.want)
			}
			continue
		}
		ue, ok := errors.AsType[*URLError](err)
		if !ok || !strings.Contains(ue.Reason, c.reason) {
			t.Errorf("%q: got %q, %v; want a *URLError with %q", c.url, got, err, c.reason)
		} else if len(ue.Error()) > 500 {
			t.Errorf("%q: an error of %d bytes", c.url, len(ue.Error()))
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("tcp://127.0.0.1:7950", true)
	f.Add("tcp://[::1]:0", false)
	f.Add("tcp://*:1", true)
	f.Add("tls+tcp://host:1", false)
	f.Fuzz(func(t *testing.T, url string, listen bool) {
		var cfg *tls.Config
		if strings.HasPrefix(url, "tls+tcp:") {
			cfg = &tls.Config{}
		}
		a, err := parseURL(url, listen, cfg)
		if (err == nil) == (a == address{}) {
			t.Fatalf("%+v, %v", a, err)
		}
		if err == nil && !a.foreign {
			again, err := parseURL(strings.TrimPrefix(a.inner(), "parley+"), listen, cfg)
			if err != nil || again != a {
				t.Fatalf("%+v became %+v, %v", a, again, err)
			}
		}
	})
}
