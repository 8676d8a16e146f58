package sp_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// A reply leaves also when what came together with its request needs none.
func TestReplyLeavesBeforeWhatHasNone(t *testing.T) {
	circle := frame([]byte(strings.Repeat("\x00\x00\x00\x01", 9) + "body"))
	for _, test := range []struct {
		name   string
		handle func(context.Context, sp.Inbound) []byte
		next   []byte
	}{
		{"too many hops", echo, circle},
		{"no reply", func(_ context.Context, in sp.Inbound) []byte {
			if string(in.Body) == "odd" {
				return nil
			}
			return in.Body
		}, request(2, "odd")},
		{"goexit", func(_ context.Context, in sp.Inbound) []byte {
			if string(in.Body) == "odd" {
				runtime.Goexit()
			}
			return in.Body
		}, request(2, "odd")},
	} {
		t.Run(test.name, func(t *testing.T) {
			rep := newReplier(t, test.handle, sp.Config{})
			c := dialRaw(t, rep.URL(), protoReq)
			_ = c.SetReadDeadline(time.Now().Add(soon))
			c.send(slices.Concat(request(1, "one"), test.next))
			if b, err := c.recv(); err != nil || !bytes.HasSuffix(b, []byte("one")) {
				t.Fatalf("%q, %v", b, err)
			}
			c.send(request(3, "three"))
			if b, err := c.recv(); err != nil || !bytes.HasSuffix(b, []byte("three")) {
				t.Fatalf("%q, %v", b, err)
			}
		})
	}
}

// What a handler took is its own, also when its goroutine ends in it.
func TestTakenInGoexit(t *testing.T) {
	taken := make(chan []byte, 10)
	handle := func(in sp.Inbound) {
		taken <- in.Take()
		runtime.Goexit()
	}
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte { handle(in); return nil }, sp.Config{})
	pull := newPuller(t, func(_ context.Context, in sp.Inbound) { handle(in) }, sp.Config{})
	for _, test := range []struct {
		url   string
		proto uint16
		head  string
	}{{rep.URL(), protoReq, "\x80\x00\x00\x01"}, {pull.URL(), protoPush, ""}} {
		c := dialRaw(t, test.url, test.proto)
		var all []byte
		for i := range 8 {
			all = append(all, frame([]byte(test.head), bytes.Repeat([]byte{byte('a' + i)}, 40_000))...)
		}
		c.send(all)
		var bodies [][]byte
		for range 8 {
			select {
			case b := <-taken:
				bodies = append(bodies, b)
			case <-time.After(soon):
				t.Fatal("messages are missing")
			}
		}
		for i, b := range bodies {
			if want := bytes.Repeat([]byte{byte('a' + i)}, 40_000); !bytes.Equal(b, want) {
				t.Errorf("protocol %#x, message %d: now it has %q", test.proto, i, b[:1])
			}
		}
	}
}

// The second that Shutdown gives the peers ends, also when a handler ends its goroutine
// in it.
func TestPullerShutdownAndGoexit(t *testing.T) {
	handled := make(chan struct{}, 1)
	first, release := make(chan struct{}), make(chan struct{})
	pull := newPuller(t, func(_ context.Context, in sp.Inbound) {
		if string(in.Body) == "first" {
			close(first)
			<-release
			return
		}
		handled <- struct{}{}
		runtime.Goexit()
	}, sp.Config{})
	c := dialRaw(t, pull.URL(), protoPush) // which ignores our end
	c.send(frame([]byte("first")))
	wait(t, "the first is being handled", first)
	done := make(chan error, 1)
	go func() { done <- pull.Shutdown(within(t, soon)) }()
	close(release)
	if err := c.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	c.send(frame([]byte("second")))
	wait(t, "the second is handled", handled)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// anyContext cannot be compared.
type anyContext struct {
	context.Context
	_ func()
}

// Contexts are the callers', of any type.
func TestRequestWithAnyContext(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	ctx := anyContext{Context: within(t, soon)}
	for i := range 50 {
		if b, err := req.Request(ctx, fmt.Append(nil, i)); err != nil || string(b) != fmt.Sprint(i) {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

// A reply that is finished does not wait for a handler that takes its time with what
// came together with its request.
func TestReplyLeavesBeforeSlowHandler(t *testing.T) {
	release := make(chan struct{})
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		if string(in.Body) == "slow" {
			<-release
		}
		return in.Body
	}, sp.Config{})
	c := dialRaw(t, rep.URL(), protoReq)
	_ = c.SetReadDeadline(time.Now().Add(soon))
	c.send(slices.Concat(request(1, "quick"), request(2, "slow")))
	b, err := c.recv()
	close(release)
	if err != nil || !bytes.HasSuffix(b, []byte("quick")) {
		t.Fatalf("%q, %v", b, err)
	}
	if b, err := c.recv(); err != nil || !bytes.HasSuffix(b, []byte("slow")) {
		t.Errorf("%q, %v", b, err)
	}
}
