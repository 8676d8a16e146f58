package sp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// Drain, then Close: nothing may be missing, however often.
func TestDrainedPusherLosesNothing(t *testing.T) {
	const rounds, each = 50, 200
	var got atomic.Int64
	pull := newPuller(t, func(context.Context, sp.Inbound) { got.Add(1) }, sp.Config{})
	for range rounds {
		push := newPusher(t, pull.URL(), sp.Config{})
		for i := range each {
			if err := push.Send(within(t, soon), make([]byte, i*40)); err != nil {
				t.Fatal(err)
			}
		}
		if err := push.Drain(within(t, soon)); err != nil {
			t.Fatal(err)
		}
		if m, b := push.Queued(); m != 0 || b != 0 {
			t.Errorf("%d messages, %d bytes queued", m, b)
		}
		_ = push.Close()
		if m, b := push.Lost(); m != 0 || b != 0 {
			t.Errorf("%d messages, %d bytes lost", m, b)
		}
	}
	eventually(t, "all arrive", func() bool { return got.Load() == rounds*each })
	if st := pull.Stats(); st.Dropped != 0 || st.Stall != 0 || st.Malformed != 0 {
		t.Errorf("%+v", st)
	}
}

// What was written and not yet read by the peer survives the Close, too.
func TestDrainedPusherLeavesOrderly(t *testing.T) {
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoPull) }()
	push := newPusher(t, ln.url(), sp.Config{})
	peer := <-accepted
	for range 100 {
		if err := push.Send(within(t, soon), make([]byte, 300)); err != nil {
			t.Fatal(err)
		}
	}
	if err := push.Drain(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	_ = push.Close()
	for i := range 100 {
		if b, err := peer.recv(); err != nil || len(b) != 300 {
			t.Fatalf("message %d: %d bytes, %v", i, len(b), err)
		}
	}
	if _, err := peer.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// full is a Pusher to a peer that does not read, with a full queue.
func full(t *testing.T, cfg sp.Config) (*sp.Pusher, *rawConn) {
	t.Helper()
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoPull) }()
	push := newPusher(t, ln.url(), cfg)
	peer := <-accepted
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := push.Send(ctx, make([]byte, 64<<10))
		cancel()
		if errors.Is(err, sp.ErrNotSent) && errors.Is(err, context.DeadlineExceeded) {
			return push, peer
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPusherQueueIsBounded(t *testing.T) {
	push, peer := full(t, sp.Config{QueueBytes: 1 << 20, StallTimeout: time.Minute})
	messages, bytes := push.Queued()
	if bytes != messages*64<<10 || bytes > 1<<20 || bytes < 1<<20-2*(64<<10+256) {
		t.Errorf("%d messages, %d bytes queued", messages, bytes)
	}
	err := push.Drain(within(t, 20*time.Millisecond))
	de, ok := errors.AsType[*sp.DrainError](err)
	if !ok || de.Messages != uint64(messages) || de.Bytes != uint64(bytes) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	// The peer reads again: who waited may go on.
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := peer.recv(); err != nil {
				return
			}
		}
	})
	if err := push.Send(within(t, soon), []byte("last")); err != nil {
		t.Error(err)
	}
	if err := push.Drain(within(t, soon)); err != nil {
		t.Error(err)
	}
	_ = push.Close()
	wg.Wait()
	if m, b := push.Lost(); m != 0 || b != 0 {
		t.Errorf("%d messages, %d bytes lost", m, b)
	}
}

// Messages count with their length on the wire: a million empty ones are not free.
func TestPusherQueueBoundsEmptyMessages(t *testing.T) {
	push, _ := full(t, sp.Config{QueueBytes: 1 << 20, StallTimeout: time.Minute})
	had, _ := push.Queued()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		err := push.Send(ctx, nil)
		cancel()
		if err != nil {
			break
		}
	}
	if m, _ := push.Queued(); m-had > 1<<20/8 {
		t.Errorf("%d empty messages are queued", m-had)
	}
}

func TestPusherCountsLossAtClose(t *testing.T) {
	log, text := logged()
	push, _ := full(t, sp.Config{QueueBytes: 1 << 20, StallTimeout: time.Minute, Logger: log})
	messages, bytes := push.Queued()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := push.Send(within(t, soon), make([]byte, 64<<10)); !errors.Is(err, sp.ErrNotSent) || !errors.Is(err, sp.ErrClosed) {
			t.Errorf("a waiting Send: %v", err)
		}
	})
	wg.Go(func() {
		err := push.Drain(within(t, soon))
		if _, ok := errors.AsType[*sp.DrainError](err); !ok || !errors.Is(err, sp.ErrClosed) {
			t.Errorf("a waiting Drain: %v", err)
		}
	})
	for range 3 {
		wg.Go(func() { _ = push.Close() })
	}
	wg.Wait()
	if m, b := push.Lost(); m != uint64(messages) || b != uint64(bytes) {
		t.Errorf("lost %d messages, %d bytes; %d, %d were queued", m, b, messages, bytes)
	}
	if m, _ := push.Queued(); m != 0 {
		t.Errorf("%d still queued", m)
	}
	if !strings.Contains(text(), "messages lost") {
		t.Errorf("not in the log:\n%s", text())
	}
	if err := push.Send(within(t, soon), nil); !errors.Is(err, sp.ErrNotSent) || !errors.Is(err, sp.ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	if err := push.Drain(within(t, soon)); !errors.Is(err, sp.ErrClosed) {
		t.Errorf("Drain after a loss: %v", err)
	}
}

func TestPusherCountsLossWhenPeerDies(t *testing.T) {
	push, peer := full(t, sp.Config{QueueBytes: 1 << 20, StallTimeout: time.Minute})
	messages, bytes := push.Queued()
	_ = peer.Close()
	wait(t, "Done", push.Done())
	eventually(t, "the loss is counted", func() bool { m, _ := push.Lost(); return m > 0 })
	if m, b := push.Lost(); m != uint64(messages) || b != uint64(bytes) {
		t.Errorf("lost %d messages, %d bytes; %d, %d were queued", m, b, messages, bytes)
	}
	err := push.Drain(within(t, soon))
	if de, ok := errors.AsType[*sp.DrainError](err); !ok || de.Messages != uint64(messages) || errors.Is(err, sp.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// A peer may press back for longer than StallTimeout; nothing is lost by it.
func TestPusherOutlivesBackPressure(t *testing.T) {
	const stall = 20 * time.Millisecond
	push, peer := full(t, sp.Config{QueueBytes: 1 << 20, StallTimeout: stall})
	pressed(t, stall, func() uint64 { return push.Stats().MessagesOut }, push.Done())
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	if err := push.Drain(within(t, soon)); err != nil {
		t.Error(err)
	}
	if st := push.Stats(); st.Stall != 0 {
		t.Errorf("%+v", st)
	}
}

func TestPusherNoticesLossWhenIdle(t *testing.T) {
	pull := newPuller(t, func(context.Context, sp.Inbound) {}, sp.Config{})
	push := newPusher(t, pull.URL(), sp.Config{})
	_ = pull.Close()
	wait(t, "Done", push.Done())
	if err := push.Send(within(t, soon), nil); !errors.Is(err, sp.ErrNotSent) || errors.Is(err, sp.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := push.Drain(within(t, soon)); err != nil {
		t.Errorf("nothing was accepted, nothing lost: %v", err)
	}
}

// What is pushed after a Shutdown, over another connection, overtakes nothing.
func TestPusherShutdownKeepsOrder(t *testing.T) {
	const rounds, each = 20, 10
	var next atomic.Int64
	pull := newPuller(t, func(_ context.Context, in sp.Inbound) {
		time.Sleep(100 * time.Microsecond) // it is slow
		if n := next.Add(1) - 1; n != int64(binary.BigEndian.Uint32(in.Body)) {
			t.Errorf("% x at %d", in.Body, n)
		}
	}, sp.Config{})
	for i := range rounds {
		push := newPusher(t, pull.URL(), sp.Config{})
		for j := range each {
			if err := push.Send(within(t, soon), binary.BigEndian.AppendUint32(nil, uint32(i*each+j))); err != nil {
				t.Fatal(err)
			}
		}
		if err := push.Shutdown(within(t, soon)); err != nil {
			t.Error(err)
		}
		if n := next.Load(); n != int64((i+1)*each) {
			t.Errorf("round %d: %d are handled", i, n)
		}
		if err := push.Shutdown(within(t, soon)); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if err := push.Send(within(t, soon), nil); !errors.Is(err, sp.ErrNotSent) {
			t.Errorf("Send afterwards: %v", err)
		}
	}
}

// A peer that never ends holds a Shutdown until its context does, and has it all.
func TestPusherShutdownIsBounded(t *testing.T) {
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoPull) }()
	push := newPusher(t, ln.url(), sp.Config{})
	peer := <-accepted
	if err := push.Send(within(t, soon), []byte("last")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- push.Shutdown(ctx) }()
	if b, err := peer.recv(); err != nil || string(b) != "last" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := peer.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	// It waits now, and takes no more.
	err := push.Send(within(t, soon), nil)
	if !errors.Is(err, sp.ErrNotSent) || !errors.Is(err, sp.ErrClosed) {
		t.Errorf("Send meanwhile: %v", err)
	}
	why := errors.New("no more time")
	cancel(why)
	if err := <-ended; !errors.Is(err, why) || !strings.Contains(err.Error(), ln.url()) {
		t.Errorf("%v", err)
	}
	if m, _ := push.Lost(); m != 0 {
		t.Errorf("%d lost", m)
	}
	wait(t, "Done", push.Done())
}

func TestPusherShutdownCountsLoss(t *testing.T) {
	push, _ := full(t, sp.Config{QueueBytes: 1 << 20})
	messages, _ := push.Queued()
	err := push.Shutdown(within(t, 20*time.Millisecond))
	if de, ok := errors.AsType[*sp.DrainError](err); !ok || de.Messages != uint64(messages) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if m, _ := push.Lost(); m != uint64(messages) {
		t.Errorf("%d lost, %d were queued", m, messages)
	}
}

func TestPusherTooLarge(t *testing.T) {
	pull := newPuller(t, func(context.Context, sp.Inbound) {}, sp.Config{})
	push := newPusher(t, pull.URL(), sp.Config{MaxMessage: 1000})
	err := push.Send(within(t, soon), make([]byte, 1001))
	if le, ok := errors.AsType[*sp.LimitError](err); !ok || le.Size != 1001 || le.Limit != 1000 || !errors.Is(err, sp.ErrNotSent) {
		t.Errorf("%v", err)
	}
	if err := push.Send(within(t, soon), make([]byte, 1000)); err != nil {
		t.Error(err)
	}
}

// A PULL peer has nothing to say; if it talks, nothing happens.
func TestPusherIgnoresTalk(t *testing.T) {
	ln := listenRaw(t)
	accepted := make(chan *rawConn, 1)
	go func() { accepted <- ln.accept(protoPull) }()
	push := newPusher(t, ln.url(), sp.Config{})
	peer := <-accepted
	for range 100 {
		peer.send(frame(make([]byte, 1000)))
	}
	if err := push.Send(within(t, soon), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if b, err := peer.recv(); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// Many messages may share one body, which is only read.
func TestPusherSharesBodies(t *testing.T) {
	const pushers, each = 4, 50
	var got atomic.Int64
	pull := newPuller(t, func(_ context.Context, in sp.Inbound) {
		if !bytes.Equal(in.Body, make([]byte, 30000)) {
			t.Error("changed")
		}
		clear(in.Body)
		got.Add(1)
	}, sp.Config{})
	body := make([]byte, 30000)
	var wg sync.WaitGroup
	for range pushers {
		push := newPusher(t, pull.URL(), sp.Config{})
		wg.Go(func() {
			for range each {
				if err := push.Send(within(t, soon), body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all arrive", func() bool { return got.Load() == pushers*each })
}
