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

// A handler that ends while its connection is taken over must not give its memory back
// before the unread part of it was copied.
func TestHandlerEndsDuringTakeOver(t *testing.T) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	rep, err := ListenReplier("tcp://127.0.0.1:0", func(context.Context, Inbound) []byte {
		entered <- struct{}{}
		<-release
		return nil
	}, Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer rep.Close()
	c, err := net.Dial("tcp", strings.TrimPrefix(rep.URL(), "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := greeting(infoReq.Self)
	if _, err := c.Write(g[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, g[:]); err != nil {
		t.Fatal(err)
	}
	var l *link
	for l == nil {
		for _, l = range rep.s.snapshot() {
		}
	}
	l.out.mu.Lock() // holds up takeOver where it flushes
	two := append(frameOf([]byte("\x80\x00\x00\x01one")), frameOf([]byte("\x80\x00\x00\x02two"))...)
	if _, err := c.Write(two); err != nil {
		t.Error(err)
	}
	<-entered
	for l.running.Load() == 0 { // until it is there
		time.Sleep(time.Millisecond)
	}
	close(release)
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if l.running.Load() == 0 {
			t.Error("the handler's goroutine went ahead")
			break
		}
	}
	l.out.mu.Unlock()
	<-entered // the second request came through
}
