package codec

import (
	"errors"
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, row := range []struct {
		what  string
		valid func(string) error
		yes   []string
		no    map[string]string // value -> a part of the error
	}{
		{"node name", ValidName,
			[]string{"a", "Z", "0", "node1", "billing-1.eu_west", long(63)},
			map[string]string{"": "is empty", "-a": "begins with '-'", ".a": "begins with '.'", "a/b": "has '/' at byte 1",
				"a b": "has ' ' at byte 1", "a\n": `has '\n' at byte 1`, "ü": "has byte 0xc3 at 0", "a\xff": "has byte 0xff at 1",
				long(64): "is 64 bytes long"}},
		{"service name", ValidService,
			[]string{"a", "unicast-rep", "sp/orders.v1", long(63)},
			map[string]string{"": "is empty", "/a": "begins with '/'", "a:b": "has ':' at byte 1", long(64): "is 64 bytes long"}},
		{"topic", ValidTopic,
			[]string{"", "orders", "$peers", "Büro 7/€", "\ufffd", long(255)},
			map[string]string{"a\tb": "has U+0009 at byte 1", "\x7f": "has U+007F at byte 0", "\u0085": "has U+0085 at byte 0",
				"a\xff": "is not UTF-8 at byte 1", long(256): "is 256 bytes long"}},
		{"tag key", ValidTagKey,
			[]string{"a", "app/role", long(63)},
			map[string]string{"": "is empty", "a=b": "has '=' at byte 1", long(64): "is 64 bytes long"}},
		{"tag value", func(s string) error { return ValidTag("k", s) },
			[]string{"", "eu 1", "größe=ü", long(128)},
			map[string]string{"a\nb": "has U+000A at byte 1", "\u202e": "has U+202E at byte 0", "\xff": "is not UTF-8 at byte 0",
				long(129): "is 129 bytes long"}},
		{"endpoint", ValidEndpoint,
			[]string{":1", ":65535", "tcp://10.0.0.5:41234", "tcp://127.0.0.1:1", "tls+tcp://[2001:db8::1]:443", "tcp://[::1]:65535"},
			map[string]string{
				"": "is neither a port nor a URL", ":": "has no valid port", ":0": "has no valid port", ":080": "has no valid port",
				":65536": "has no valid port", ":-1": "has no valid port", ":http": "has no valid port",
				"10.0.0.5:1": "is neither a port nor a URL", "udp://10.0.0.5:1": "has an unknown scheme", "TCP://10.0.0.5:1": "has an unknown scheme",
				"tcp://": "has no literal address", "tcp://localhost:1": "has no literal address", "tcp://:1": "has no literal address",
				"tcp://10.0.0.5": "has no literal address", "tcp://10.0.0.5:0": "has port 0", "tcp://10.0.0.5:65536": "has no literal address",
				"tcp://10.0.0.5:1/x": "has no literal address", "tcp://u@10.0.0.5:1": "has no literal address", "tcp://2001:db8::1:443": "has no literal address",
				"tcp://0.0.0.0:1": "unspecified", "tcp://[::]:1": "unspecified", "tcp://[::ffff:0.0.0.0]:1": "unspecified",
				"tcp://224.0.0.1:1": "many hosts", "tcp://[ff02::1]:1": "many hosts", "tcp://255.255.255.255:1": "many hosts",
				"tcp://[fe80::1%eth0]:1": "has a zone", "tcp://" + strings.Repeat("1", 123): "is 129 bytes long"}},
	} {
		for _, s := range row.yes {
			if err := row.valid(s); err != nil {
				t.Errorf("%s %q: %v", row.what, s, err)
			}
		}
		for s, text := range row.no {
			err := row.valid(s)
			var name *NameError
			if !errors.As(err, &name) {
				t.Errorf("%s %q: %T %v", row.what, s, err, err)
				continue
			}
			if name.What != row.what || name.Value != s || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "; allowed: ") {
				t.Errorf("%s %q: %v", row.what, s, err)
			}
			var limit *LimitError
			if tooLong := strings.Contains(text, "bytes long"); errors.As(err, &limit) != tooLong {
				t.Errorf("%s %q: a LimitError inside: %v, want %v", row.what, s, !tooLong, tooLong)
			} else if tooLong && (limit.Size != len(s) || limit.Limit != len(s)-1) {
				t.Errorf("%s %q: %+v", row.what, s, limit)
			}
		}
	}
	if err := ValidTag("a b", "v"); err == nil {
		t.Error("ValidTag takes any key")
	}
}

// TestNameErrorIsFitForALog: the value is a stranger's.
func TestNameErrorIsFitForALog(t *testing.T) {
	text := ValidName("\x1b[31m\n" + strings.Repeat("ü", 1<<20)).Error()
	if len(text) > 600 || strings.ContainsAny(text, "\x1b\n") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
}

func TestValidAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		if ValidName("node-1") != nil || ValidTopic("Büro") != nil || ValidTag("a/b", "ü") != nil || ValidEndpoint("tcp://10.0.0.5:1") != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
