package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

func TestLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for _, c := range []struct {
		name, topic, body, want string
	}{
		{"plain", "default", "hello", `default 5B "hello"`},
		{"empty", "default", "", `default 0B ""`},
		{"no topic", "", "x", `"" 1B "x"`},
		{"topic with a space", "a b", "x", `"a b" 1B "x"`},
		{"quotes and lines", "t", "a\"b\nc", `t 5B "a\"b\nc"`},
		{"terminal controls", "t", "\x1b[2J\x07\x9b\u0085\u202e", `t 11B "\x1b[2J\a\x9b\u0085\u202e"`},
		{"binary", "t", "\x00\xff", `t 2B "\x00\xff"`},
		{"other letters", "grüße", "žluťoučký 馬", `grüße 17B "žluťoučký 馬"`},
		{"long", "t", strings.Repeat("x", 300), `t 300B "` + strings.Repeat("x", 256) + `"… and 44B more`},
		{"long, cut at a letter", "t", strings.Repeat("x", 255) + "é" + "x", `t 258B "` + strings.Repeat("x", 255) + `"… and 3B more`},
		{"long binary", "t", strings.Repeat("\xff", 257), `t 257B "` + strings.Repeat(`\xff`, 256) + `"… and 1B more`},
	} {
		got := Line(control.Message{Time: at, Kind: "send", From: "node1", Topic: c.topic, Body: []byte(c.body)})
		if want := "2026-01-02T03:04:05.678Z send node1 " + c.want; got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
		if strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%s: control characters in %q", c.name, got)
		}
	}
}

func TestPrinter(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out, slog.New(slog.DiscardHandler))
	for range 2 {
		if err := p.print(t.Context(), control.Message{Kind: "send", From: "n", Topic: "t", Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	p.close()
	if got := strings.Count(out.String(), "send n t 1B \"x\"\n"); got != 2 {
		t.Errorf("printed %q", out.String())
	}
	if err := p.print(t.Context(), control.Message{}); !errors.Is(err, errStopping) {
		t.Errorf("after close: %v", err)
	}
}

// A terminal that was stopped holds nobody up for longer than they want to wait.
func TestPrinterBlocked(t *testing.T) {
	r, w := io.Pipe()
	p := newPrinter(w, slog.New(slog.DiscardHandler))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := p.print(ctx, control.Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	r.Close() // the blocked write fails
	p.close()
}

func TestPrinterFailing(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	p := newPrinter(w, slog.New(slog.DiscardHandler))
	defer p.close()
	if err := p.print(t.Context(), control.Message{}); err == nil || !strings.Contains(err.Error(), "could not print") {
		t.Errorf("got %v", err)
	}
}

func TestSnakeCase(t *testing.T) {
	for in, want := range map[string]string{
		"Alive": "alive", "MetadataBytes": "metadata_bytes", "MaxMessageKB": "max_message_kb", "URL": "url", "SPPipes": "sp_pipes",
	} {
		if got := snakeCase(in); got != want {
			t.Errorf("snakeCase(%s) = %s, want %s", in, got, want)
		}
	}
}
