package sp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

func TestManyConcurrentRequests(t *testing.T) {
	const n = 2000
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte { return append([]byte("re: "), in.Body...) }, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	var wg sync.WaitGroup
	var most atomic.Int64
	for i := range n {
		wg.Go(func() {
			body := fmt.Sprint("question ", i)
			reply, err := req.Request(within(t, soon), []byte(body))
			if err != nil || string(reply) != "re: "+body {
				t.Errorf("%q, %v", reply, err)
			}
			if k := int64(req.InFlight()); k > most.Load() {
				most.Store(k)
			}
		})
	}
	wg.Wait()
	if most.Load() > 256 || req.InFlight() != 0 {
		t.Errorf("%d were outstanding at once, %d are now", most.Load(), req.InFlight())
	}
	eventually(t, "the replier has counted them", func() bool { // it counts what it has written
		st := rep.Stats()
		return st.MessagesIn == n && st.MessagesOut == n && st.Handling == 0 && st.Pipes == 1
	})
	eventually(t, "the requester, too", func() bool {
		st := req.Stats()
		return st.MessagesOut == n && st.MessagesIn == n && st.LateReplies == 0
	})
}

// mutePeer takes connections, greets, reads what comes and answers nothing.
func mutePeer(t *testing.T, proto uint16) (url string, received <-chan []byte) {
	ln := listenRaw(t)
	ch := make(chan []byte, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		c := ln.accept(proto)
		if c == nil {
			return
		}
		for {
			b, err := c.recv()
			if err != nil {
				return
			}
			ch <- b
		}
	})
	t.Cleanup(wg.Wait)
	return ln.url(), ch
}

func TestRequestEndsWithContext(t *testing.T) {
	url, received := mutePeer(t, protoRep)
	req := newRequester(t, url, sp.Config{InFlight: 1})
	why := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := req.Request(ctx, []byte("first"))
		if !errors.Is(err, why) || errors.Is(err, sp.ErrNotSent) || errors.Is(err, sp.ErrConnectionLost) {
			t.Errorf("after it was sent: %v", err)
		}
	})
	if b := <-received; string(b[4:]) != "first" || b[0]&0x80 == 0 {
		t.Errorf("% x", b)
	}
	// The second has no place while the first is outstanding.
	_, err := req.Request(within(t, 20*time.Millisecond), []byte("second"))
	if !errors.Is(err, sp.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before it was sent: %v", err)
	}
	if !strings.Contains(err.Error(), url) {
		t.Errorf("names no peer: %v", err)
	}
	cancel(why)
	wg.Wait()
	if _, err := req.Request(ctx, nil); !errors.Is(err, sp.ErrNotSent) || !errors.Is(err, why) {
		t.Errorf("with a dead context: %v", err)
	}
	// The place is free again, and the connection good.
	ctx, cancel = context.WithCancelCause(context.Background())
	wg.Go(func() { _, _ = req.Request(ctx, []byte("third")) })
	if b := <-received; string(b[4:]) != "third" {
		t.Errorf("% x", b)
	}
	cancel(nil)
	wg.Wait()
	_ = req.Close()
}

// While a peer does not even read, no caller waits longer than its context, and
// each hears whether its request was handed over.
func TestRequestToPeerThatDoesNotRead(t *testing.T) {
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoRep) }()
	req := newRequester(t, ln.url(), sp.Config{StallTimeout: time.Minute})
	<-accepted
	large := make([]byte, 1<<20)
	unknown, notSent := 0, 0
	for unknown == 0 || notSent < 3 { // until the socket buffers are full
		_, err := req.Request(within(t, 20*time.Millisecond), large)
		switch {
		case errors.Is(err, sp.ErrNotSent) && errors.Is(err, context.DeadlineExceeded):
			notSent++
		case errors.Is(err, context.DeadlineExceeded):
			unknown++
			notSent = 0
		default:
			t.Fatal(err)
		}
	}
	if n := req.InFlight(); n != 0 {
		t.Errorf("%d are outstanding", n)
	}
}

// A peer may press back for longer than StallTimeout; nothing is lost by it.
func TestRequestsOutliveBackPressure(t *testing.T) {
	const stall = 20 * time.Millisecond
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoRep) }()
	req := newRequester(t, ln.url(), sp.Config{StallTimeout: stall})
	peer := <-accepted
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := req.Request(within(t, soon), make([]byte, 1<<20)); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	pressed(t, stall, func() uint64 { return req.Stats().MessagesOut }, req.Done())
	for range 20 {
		b, err := peer.recv()
		if err != nil {
			t.Fatal(err)
		}
		peer.send(frame(b[:4]))
	}
	wg.Wait()
	if st := req.Stats(); st.Stall != 0 || st.Pipes != 1 {
		t.Errorf("%+v", st)
	}
}

// pressed returns when written has not grown for ten times stall.
func pressed(t *testing.T, stall time.Duration, written func() uint64, done <-chan struct{}) {
	t.Helper()
	last, since := written(), time.Now()
	eventually(t, "the peer presses back", func() bool {
		if n := written(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 10*stall
	})
	select {
	case <-done:
		t.Fatal("the connection was given up")
	default:
	}
}

func TestPeerClosesMidRequest(t *testing.T) {
	ln := listenRaw(t)
	go func() {
		c := ln.accept(protoRep)
		if c == nil {
			return
		}
		_, _ = c.recv()
		_, _ = c.Write([]byte{0, 0, 0, 0, 0, 0, 0, 9, 0x80, 1}) // half a reply
		_ = c.Close()
	}()
	req := newRequester(t, ln.url(), sp.Config{})
	_, err := req.Request(within(t, soon), []byte("x"))
	if !errors.Is(err, sp.ErrConnectionLost) || errors.Is(err, sp.ErrNotSent) || errors.Is(err, sp.ErrClosed) {
		t.Errorf("%v", err)
	}
	wait(t, "Done", req.Done())
	_, err = req.Request(within(t, soon), []byte("x"))
	if !errors.Is(err, sp.ErrNotSent) || errors.Is(err, sp.ErrConnectionLost) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestRequesterNoticesLossWhenIdle(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	if _, err := req.Request(within(t, soon), nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-req.Done():
		t.Fatal("Done too early")
	default:
	}
	_ = rep.Close()
	wait(t, "Done", req.Done())
}

func TestRequesterClose(t *testing.T) {
	url, received := mutePeer(t, protoRep)
	req := newRequester(t, url, sp.Config{InFlight: 1})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := req.Request(within(t, soon), []byte("sent"))
		if !errors.Is(err, sp.ErrConnectionLost) || !errors.Is(err, sp.ErrClosed) || errors.Is(err, sp.ErrNotSent) {
			t.Errorf("sent: %v", err)
		}
	})
	<-received
	wg.Go(func() {
		_, err := req.Request(within(t, soon), []byte("waiting"))
		if !errors.Is(err, sp.ErrNotSent) || !errors.Is(err, sp.ErrClosed) {
			t.Errorf("waiting: %v", err)
		}
	})
	for range 3 {
		wg.Go(func() { _ = req.Close() })
	}
	wg.Wait()
	wait(t, "Done", req.Done())
}

func TestRequestTooLarge(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{MaxMessage: 1000})
	_, err := req.Request(within(t, soon), make([]byte, 1001))
	le, ok := errors.AsType[*sp.LimitError](err)
	if !ok || le.Size != 1001 || le.Limit != 1000 || !errors.Is(err, sp.ErrTooLarge) || !errors.Is(err, sp.ErrNotSent) {
		t.Errorf("%v", err)
	}
	if _, err := req.Request(within(t, soon), make([]byte, 1000)); err != nil {
		t.Errorf("exactly the limit, there and back: %v", err)
	}
	if n := rep.Stats().MessagesIn; n != 1 {
		t.Errorf("%d requests were sent", n)
	}
	if st := req.Stats(); st.TooLarge != 1 {
		t.Errorf("%+v", st)
	}
}

// A reply goes to its own request whatever the order, once, and never to another.
func TestRepliesFindTheirRequests(t *testing.T) {
	ln := listenRaw(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		c := ln.accept(protoRep)
		if c == nil {
			return
		}
		var asked [][]byte
		for range 3 {
			b, err := c.recv()
			if err != nil {
				t.Error(err)
				return
			}
			asked = append(asked, b)
		}
		stray := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(asked[0])+77|1<<31)
		c.send(frame(stray, []byte("forged")))
		for i := range asked {
			b := asked[len(asked)-1-i]
			c.send(frame(b))
			c.send(frame(b[:4], []byte("again")))
		}
	})
	req := newRequester(t, ln.url(), sp.Config{})
	for i := range 3 {
		wg.Go(func() {
			body := fmt.Sprint(i)
			if reply, err := req.Request(within(t, soon), []byte(body)); err != nil || string(reply) != body {
				t.Errorf("%q got %q, %v", body, reply, err)
			}
		})
	}
	wg.Wait()
	eventually(t, "the strays are counted", func() bool { return req.Stats().LateReplies == 4 })
}

func TestMalformedReplyEndsConnection(t *testing.T) {
	for _, b := range []string{"", "abc", "\x00\x00\x00\x01no id"} {
		ln := listenRaw(t)
		go func() {
			if c := ln.accept(protoRep); c != nil {
				_, _ = c.Write(frame([]byte(b)))
			}
		}()
		req := newRequester(t, ln.url(), sp.Config{})
		wait(t, "Done", req.Done())
		if st := req.Stats(); st.Malformed != 1 {
			t.Errorf("%q: %+v", b, st)
		}
	}
}

// A body is never copied, and is the caller's again when it was not sent; the race
// detector watches.
func TestRequestBodyAfterNotSent(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	body := make([]byte, 1<<20)
	for i := range 30 {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*50*time.Microsecond)
				defer cancel()
				mine := body
				if i%2 == 0 {
					mine = make([]byte, 1<<20)
				}
				_, err := req.Request(ctx, mine)
				if errors.Is(err, sp.ErrNotSent) && i%2 == 0 {
					clear(mine)
				}
			})
		}
		wg.Wait()
	}
	if reply, err := req.Request(within(t, soon), body); err != nil || !bytes.Equal(reply, body) {
		t.Errorf("%d bytes, %v", len(reply), err)
	}
}

// LastRead moves with every byte that is read, and with nothing else.
func TestRequesterLastRead(t *testing.T) {
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoRep) }()
	before := time.Now()
	req := newRequester(t, ln.url(), sp.Config{})
	peer := <-accepted
	made := req.LastRead()
	if made.Before(before) || made.After(time.Now()) {
		t.Errorf("at first: %v, dialed at %v", made, before)
	}
	_, _ = req.Request(within(t, 20*time.Millisecond), []byte("x"))
	if _, err := peer.recv(); err != nil {
		t.Fatal(err)
	}
	if last := req.LastRead(); !last.Equal(made) {
		t.Errorf("nothing was read, and it moved by %v", last.Sub(made))
	}
	began := time.Now()
	peer.send([]byte{0, 0, 0, 0}) // half a length
	eventually(t, "it is read", func() bool { return req.LastRead().After(began) })
}

// A reply over the limit ends the connection. It is the peer's message that was too
// large, and not any of those that wait for an answer.
func TestReplyTooLargeEndsConnection(t *testing.T) {
	ln := listenRaw(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		c := ln.accept(protoRep)
		if c == nil {
			return
		}
		for range 2 {
			if _, err := c.recv(); err != nil {
				t.Error(err)
			}
		}
		c.send(binary.BigEndian.AppendUint64(nil, 1005))
	})
	req := newRequester(t, ln.url(), sp.Config{MaxMessage: 1000})
	for range 2 {
		wg.Go(func() {
			_, err := req.Request(within(t, soon), []byte("x"))
			if !errors.Is(err, sp.ErrConnectionLost) || errors.Is(err, sp.ErrTooLarge) || errors.Is(err, sp.ErrNotSent) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	_, err := req.Request(within(t, soon), []byte("x"))
	if !errors.Is(err, sp.ErrNotSent) || errors.Is(err, sp.ErrTooLarge) || !strings.Contains(err.Error(), "1005 bytes") {
		t.Errorf("afterwards: %v", err)
	}
	if st := req.Stats(); st.TooLarge != 1 {
		t.Errorf("%+v", st)
	}
}
