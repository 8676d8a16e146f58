package demo

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Out: &out, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	for _, title := range []string{"members", "send", "request", "broadcast", "typo", "crash", "goodbye"} {
		if !bytes.Contains(out.Bytes(), []byte("ok  "+title)) {
			t.Errorf("no line for %s:\n%s", title, out.Bytes())
		}
	}
	if !bytes.Contains(out.Bytes(), []byte("unknown node")) {
		t.Errorf("the typo's error is not shown:\n%s", out.Bytes())
	}
}

// TestInterrupted: Ctrl-C ends the demo with an error and closes its nodes,
// whichever step it hits.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &cancelAfter{cancel: cancel, text: []byte("ok  send")}
	begin := time.Now()
	if err := Run(ctx, Options{Out: out, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err == nil {
		t.Fatal("an interrupted demo reported success")
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("ended after %v only", took)
	}
}

// cancelAfter cancels when a text was written.
type cancelAfter struct {
	cancel func()
	text   []byte
}

func (c *cancelAfter) Write(p []byte) (int, error) {
	if bytes.Contains(p, c.text) {
		c.cancel()
	}
	return len(p), nil
}
