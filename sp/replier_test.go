package sp_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

func TestRequestReply(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	for _, n := range []int{0, 1, 64, 9000, 65536, 1 << 20, sp.DefaultMaxMessage} {
		body := bytes.Repeat([]byte{byte(n), 1}, n/2+1)[:n]
		reply, err := req.Request(within(t, soon), body)
		if err != nil || !bytes.Equal(reply, body) {
			t.Errorf("%d bytes: %d back, %v", n, len(reply), err)
		}
	}
	eventually(t, "all is counted", func() bool {
		st := rep.Stats()
		return st.MessagesIn == 7 && st.MessagesOut == 7 && st.Accepted == 1 && st.Pipes == 1 && st.Handling == 0
	})
}

func TestReplierGivesRemote(t *testing.T) {
	got := make(chan net.Addr, 1)
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		got <- in.Remote
		return []byte{}
	}, sp.Config{})
	c := dialRaw(t, rep.URL(), protoReq)
	c.send(request(1, "x"))
	if a := <-got; a.String() != c.LocalAddr().String() {
		t.Errorf("remote is %v, want %v", a, c.LocalAddr())
	}
	if reply, err := c.recv(); err != nil || string(reply) != "\x80\x00\x00\x01" {
		t.Errorf("an empty reply is a reply: % x, %v", reply, err)
	}
}

func TestReplierNilIsNoReply(t *testing.T) {
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		if string(in.Body) == "hush" {
			return nil
		}
		return in.Body
	}, sp.Config{InFlight: 1})
	c := dialRaw(t, rep.URL(), protoReq)
	c.send(append(request(1, "hush"), request(2, "speak")...))
	if reply, err := c.recv(); err != nil || string(reply) != "\x80\x00\x00\x02speak" {
		t.Errorf("%q, %v", reply, err)
	}
}

// Devices put the ids of their pipes before the request's own; they must come back.
func TestReplierKeepsBacktrace(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	c := dialRaw(t, rep.URL(), protoReq)
	trace := []byte("\x00\x00\x00\x05\x00\x00\x01\x06\x80\x00\x00\x07")
	c.send(frame(trace, []byte("body")))
	if reply, err := c.recv(); err != nil || string(reply) != string(trace)+"body" {
		t.Errorf("% x, %v", reply, err)
	}
	// One that runs in a circle is dropped, and harms nobody else behind the device.
	c.send(frame(bytes.Repeat([]byte{0, 0, 0, 9}, 9), trace))
	c.send(request(8, "after"))
	if reply, err := c.recv(); err != nil || string(reply) != "\x80\x00\x00\x08after" {
		t.Errorf("% x, %v", reply, err)
	}
	if st := rep.Stats(); st.Malformed != 1 {
		t.Errorf("%+v", st)
	}
}

func TestReplierCutsOffGarbage(t *testing.T) {
	log, text := logged()
	rep := newReplier(t, echo, sp.Config{MaxMessage: 1000, Logger: log})
	for _, c := range []struct {
		name  string
		frame []byte
		count func(sp.Stats) uint64
	}{
		{"no id", frame([]byte("abc")), func(s sp.Stats) uint64 { return s.Malformed }},
		{"no final id", frame([]byte("\x00\x00\x00\x01")), func(s sp.Stats) uint64 { return s.Malformed }},
		{"too large", []byte{0, 0, 0, 0, 0, 1, 0, 0}, func(s sp.Stats) uint64 { return s.TooLarge }},
		{"negative length", []byte{255, 0, 0, 0, 0, 0, 0, 0}, func(s sp.Stats) uint64 { return s.TooLarge }},
		{"larger than the room for words hides", request(1, strings.Repeat("x", 1001)), func(s sp.Stats) uint64 { return s.TooLarge }},
	} {
		before := c.count(rep.Stats())
		raw := dialRaw(t, rep.URL(), protoReq)
		raw.send(c.frame)
		if _, err := raw.recv(); err == nil {
			t.Errorf("%s: answered", c.name)
		}
		if n := c.count(rep.Stats()); n != before+1 {
			t.Errorf("%s: counted %d", c.name, n-before)
		}
	}
	for _, want := range []string{"too large", "malformed"} {
		eventually(t, want+" is in the log", func() bool { return strings.Contains(text(), want) })
	}
	raw := dialRaw(t, rep.URL(), protoReq)
	raw.send(request(1, strings.Repeat("x", 1000)))
	if _, err := raw.recv(); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
}

func TestReplierInFlightIsBounded(t *testing.T) {
	var running, most atomic.Int64
	release := make(chan struct{})
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		running.Add(-1)
		return in.Body
	}, sp.Config{InFlight: 3})
	c := dialRaw(t, rep.URL(), protoReq)
	for i := range uint32(20) {
		c.send(request(i, "x"))
	}
	eventually(t, "three run", func() bool { return running.Load() == 3 })
	// Another connection has its own three.
	other := dialRaw(t, rep.URL(), protoReq)
	other.send(request(1, "x"))
	eventually(t, "another runs, too", func() bool { return running.Load() == 4 })
	close(release)
	for range 20 {
		if _, err := c.recv(); err != nil {
			t.Fatal(err)
		}
	}
	if m := most.Load(); m > 4 {
		t.Errorf("%d ran at once", m)
	}
}

// The bytes of all connections together are bounded, and still no connection
// starves behind those that fill the bound and never finish.
func TestReplierTotalIsBoundedAndFair(t *testing.T) {
	var running atomic.Int64
	release := make(chan struct{})
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		if string(in.Body) == "quick" {
			return in.Body
		}
		running.Add(1)
		<-release
		return in.Body
	}, sp.Config{TotalBytes: 4 * (16<<10 + 4)})
	hog := dialRaw(t, rep.URL(), protoReq)
	for i := range uint32(20) {
		hog.send(request(i, "slow"))
	}
	eventually(t, "four run", func() bool { return running.Load() == 4 })

	meek := newRequester(t, rep.URL(), sp.Config{})
	for range 50 {
		if _, err := meek.Request(within(t, soon), []byte("quick")); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup // also when it asks for several at once
	for range 10 {
		wg.Go(func() {
			if _, err := meek.Request(within(t, soon), []byte("quick")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := running.Load(); n != 4 {
		t.Errorf("%d run", n)
	}
	close(release)
	for range 20 {
		if _, err := hog.recv(); err != nil {
			t.Fatal(err)
		}
	}
}

// A client that does not read its replies is cut off; the others notice nothing,
// and what waits for it in memory is bounded by QueueBytes, replies included.
func TestReplierSlowReader(t *testing.T) {
	const size, queue = 256 << 10, 2 << 20
	var made atomic.Int64
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		if string(in.Body) == "large" {
			made.Add(1)
			return make([]byte, size)
		}
		return in.Body
	}, sp.Config{StallTimeout: time.Second, QueueBytes: queue, InFlight: 100})
	stuck := dialRaw(t, rep.URL(), protoReq)
	var wg sync.WaitGroup
	wg.Go(func() { // it asks as long as it is heard
		for i := int64(0); rep.Stats().Stall == 0; time.Sleep(100 * time.Microsecond) {
			if made.Load() < i {
				continue
			}
			i++
			if _, err := stuck.Write(request(uint32(i), "large")); err != nil {
				return
			}
		}
	})
	good := newRequester(t, rep.URL(), sp.Config{})
	small := uint64(0)
	for rep.Stats().Stall == 0 {
		if _, err := good.Request(within(t, soon), []byte("small")); err != nil {
			t.Fatal(err)
		}
		small++
	}
	wg.Wait()
	eventually(t, "its place is free", func() bool { st := rep.Stats(); return st.Pipes == 1 && st.Handling == 0 })
	eventually(t, "all replies are accounted for", func() bool {
		st := rep.Stats()
		return st.RepliesLost > 0 && st.MessagesOut-small+st.RepliesLost == uint64(made.Load())
	})
	st := rep.Stats()
	// A few may be under way before the reply of the one before is charged.
	if st.RepliesLost > queue*5/4/size+4 {
		t.Errorf("%d replies of %d bytes waited for a client that does not read", st.RepliesLost, size)
	}
}

func TestReplierContextEndsWithConnection(t *testing.T) {
	ended := make(chan error, 1)
	rep := newReplier(t, func(ctx context.Context, in sp.Inbound) []byte {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return in.Body
	}, sp.Config{})
	c := dialRaw(t, rep.URL(), protoReq)
	c.send(request(1, "x"))
	eventually(t, "it is being handled", func() bool { return rep.Stats().Handling == 1 })
	_ = c.Close()
	if err := <-ended; !errors.Is(err, sp.ErrConnectionLost) {
		t.Errorf("%v", err)
	}
	eventually(t, "the lost reply is counted", func() bool { st := rep.Stats(); return st.RepliesLost == 1 && st.Handling == 0 })

	c = dialRaw(t, rep.URL(), protoReq)
	c.send(request(1, "x"))
	eventually(t, "it is being handled", func() bool { return rep.Stats().Handling == 1 })
	_ = rep.Close()
	if err := <-ended; !errors.Is(err, sp.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestReplierReplyTooLarge(t *testing.T) {
	log, text := logged()
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		if string(in.Body) == "large" {
			return make([]byte, 1001)
		}
		return in.Body
	}, sp.Config{MaxMessage: 1000, Logger: log})
	c := dialRaw(t, rep.URL(), protoReq)
	c.send(append(request(1, "large"), request(2, "small")...))
	if reply, err := c.recv(); err != nil || string(reply) != "\x80\x00\x00\x02small" {
		t.Errorf("%q, %v", reply, err)
	}
	eventually(t, "counted", func() bool { st := rep.Stats(); return st.TooLarge == 1 && st.RepliesLost == 1 })
	eventually(t, "logged", func() bool { return strings.Contains(text(), "1001 bytes") })
}

func TestTwoRepliersInOneProcess(t *testing.T) {
	one := newReplier(t, func(context.Context, sp.Inbound) []byte { return []byte("one") }, sp.Config{MaxMessage: 100})
	two := newReplier(t, func(context.Context, sp.Inbound) []byte { return []byte("two") }, sp.Config{})
	for rep, want := range map[*sp.Replier]string{one: "one", two: "two"} {
		reply, err := newRequester(t, rep.URL(), sp.Config{}).Request(within(t, soon), nil)
		if string(reply) != want || err != nil {
			t.Errorf("%q, %v", reply, err)
		}
	}
	_ = one.Close()
	if reply, err := newRequester(t, two.URL(), sp.Config{}).Request(within(t, soon), nil); string(reply) != "two" || err != nil {
		t.Errorf("after the other was closed: %q, %v", reply, err)
	}
	if one.Stats().MessagesIn != 1 || two.Stats().MessagesIn != 2 {
		t.Error("they count together")
	}
}

// panicInHandler is the process of TestPanicIsNotHidden.
func panicInHandler() {
	rep, err := sp.ListenReplier(anyPort, func(context.Context, sp.Inbound) []byte { panic("the handler's own") }, sp.Config{})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	req, err := sp.DialRequester(ctx, rep.URL(), sp.Config{})
	if err != nil {
		return
	}
	_, _ = req.Request(ctx, nil)
}

func TestPanicIsNotHidden(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SP_TEST_PANIC=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the handler's own") || !strings.Contains(string(out), "panicInHandler") {
		t.Errorf("%v\n%s", err, out)
	}
}
