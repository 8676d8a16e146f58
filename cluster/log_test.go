package cluster

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLogAdapter(t *testing.T) {
	for _, c := range []struct {
		line  string
		level string
		text  string
	}{
		{"[DEBUG] memberlist: Stream connection from=127.0.0.1:1", "DEBUG", `msg="Stream connection from=127.0.0.1:1"`},
		{"[INFO] memberlist: Suspect node1~0123456789abcdef has failed, no acks received", "DEBUG", `msg="Suspect node1 has failed, no acks received"`},
		{"[WARN] memberlist: Refuting a suspect message (from: node2~fedcba9876543210)", "INFO", `(from: node2)`},
		{"[WARN] memberlist: ignoring alive message for 'x': no", "DEBUG", "ignoring"},
		{"[WARN] memberlist: handler queue full, dropping message (3)", "WARN", "handler queue full"},
		{"[ERR] memberlist: Push/Pull with node1~0123456789abcdef failed: EOF", "INFO", "Push/Pull with node1 failed"},
		{"[ERR] memberlist: Decrypt packet failed: no installed keys", "WARN", "Decrypt packet failed"},
		{"[ERROR] memberlist: Failed to encrypt local state: x", "ERROR", "Failed to encrypt"},
		{"[ERR] memberlist: failed to receive and remove the stream label header: EOF from=1", "DEBUG", "label header"},
		{"Err: Could not set the deadline: x", "WARN", "deadline"},
	} {
		var out bytes.Buffer
		a := &logAdapter{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", "n")}
		log.New(a, "", 0).Print(c.line)
		got := out.String()
		if !strings.Contains(got, "level="+c.level+" ") || !strings.Contains(got, c.text) || !strings.Contains(got, "component=memberlist") || !strings.Contains(got, "node=n") {
			t.Errorf("%s\nbecame %s", c.line, got)
		}
	}
}

func TestLogIsRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		a := &logAdapter{log: r.logger(slog.LevelInfo)}
		l := log.New(a, "", 0)
		for range 100 {
			l.Print("[ERR] memberlist: Decrypt packet failed: no installed keys from=10.0.0.9:1")
		}
		l.Print("[WARN] memberlist: handler queue full, dropping message (3)")
		if len(r.lines) != 2 {
			t.Errorf("%d lines", len(r.lines))
		}
		time.Sleep(logInterval)
		l.Print("[ERR] memberlist: Decrypt packet failed: no installed keys from=10.0.0.9:1")
		if !r.has("suppressed=99") {
			t.Errorf("what was held back is not told: %q", r.lines)
		}
		a.muted.Store(true)
		l.Print("[WARN] memberlist: after the end")
		if len(r.lines) != 3 {
			t.Errorf("%d lines", len(r.lines))
		}
		for i := range 1000 {
			a.limit.allow(strings.Repeat("x", i))
		}
		if len(a.limit.kinds) > 64 {
			t.Errorf("%d kinds are remembered", len(a.limit.kinds))
		}
	})
}
