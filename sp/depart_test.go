package sp

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// Shutdown may be called twice, and a connection may come while it begins: a second
// interrupt does not shorten the time in which the peer may end.
func TestPullerInterruptedTwice(t *testing.T) {
	handled := make(chan string, 1)
	pull, err := ListenPuller("tcp://127.0.0.1:0", func(_ context.Context, in Inbound) {
		handled <- string(in.Body)
	}, Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer pull.Close()
	c, err := net.Dial("tcp", strings.TrimPrefix(pull.URL(), "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := greeting(infoPush.Self)
	if _, err := c.Write(g[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, g[:]); err != nil {
		t.Fatal(err)
	}
	var l *link
	for l == nil {
		for _, l = range pull.s.snapshot() {
		}
	}
	down := make(chan error, 1)
	go func() { down <- pull.Shutdown(context.Background()) }()
	if _, err := c.Read(g[:]); err != io.EOF { // it was told that we end
		t.Fatal(err)
	}
	l.in.interrupt()
	for l.in.kicked.Load() && !closed(l.done) {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Write(frameOf([]byte("last"))); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if err := <-down; err != nil {
		t.Error(err)
	}
	select {
	case <-handled:
	default:
		t.Error("the last message was not handled")
	}
}
