package sp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func testReader(conn net.Conn, raw syscall.RawConn, most int, stall time.Duration) *reader {
	return newReader(conn, raw, &settings{maxFrame: most, stallTimeout: stall, stats: &counters{}, log: newLogger(slog.New(slog.DiscardHandler))})
}

// kept is memory that its reader must leave alone.
type kept struct {
	b    []byte
	left *chunk
}

// Whatever comes in whatever pieces, and whoever interrupts: all messages are returned
// once and in order, and what was kept or split off stays as it was.
func TestReaderModel(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		for _, poll := range []time.Duration{0, 50 * time.Microsecond} {
			if way.name != "plain" || poll == 0 {
				readerModel(t, way, poll)
			}
		}
	})
}

func readerModel(t *testing.T, way way, poll time.Duration) {
	n := rounds(300)
	here, there, raw := way.pair(t)
	in := testReader(here, raw, 1<<19, time.Minute)
	in.poll.limit = poll
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer scribbler(&helpers)()
	helpers.Go(func() {
		r := rand.New(rand.NewPCG(1, 10))
		var stream []byte
		for seq := range n {
			size := someSize(r, 1<<19)
			stream = append(stream, frameOf(content(1, uint32(seq), size))...)
			if r.IntN(4) == 0 && seq < n-1 {
				continue
			}
			for len(stream) > 0 {
				k := len(stream)
				switch r.IntN(4) {
				case 0:
					k = min(k, 1+r.IntN(20))
				case 1:
					k = 1 + r.IntN(k)
				}
				if _, err := there.Write(stream[:k]); err != nil {
					t.Error(err)
					return
				}
				stream = stream[k:]
				if r.IntN(30) == 0 {
					time.Sleep(time.Duration(r.IntN(100)) * time.Microsecond)
				}
			}
		}
	})
	var over atomic.Bool
	for range 2 {
		helpers.Go(func() {
			for i := 0; !over.Load(); i++ {
				in.interrupt()
				if i%3 > 0 {
					time.Sleep(50 * time.Microsecond)
				} else {
					runtime.Gosched()
				}
			}
		})
	}
	defer func() { over.Store(true); _ = here.Close() }()
	r := rand.New(rand.NewPCG(2, 20))
	var all []kept
	interrupts := 0
	for seq := 0; seq < n; {
		b, own, err := in.next()
		if errors.Is(err, errInterrupted) {
			interrupts++
			in.resume()
			continue
		}
		if err != nil {
			t.Fatalf("message %d of %d, after %d interrupts: %v", seq, n, interrupts, err)
		}
		if s, got, err := checkContent(b); err != nil || s != 1 || int(got) != seq {
			t.Fatalf("message %d, want %d: %v", got, seq, err)
		}
		if own != (len(b) > inPlace) {
			t.Fatalf("%d bytes: own memory %v", len(b), own)
		}
		if cap(b) != len(b) && !own {
			t.Fatal("a message that can be appended to, into what comes after it")
		}
		seq++
		switch r.IntN(10) {
		case 0:
			if own {
				in.keep()
				all = append(all, kept{b: b})
			}
		case 1:
			all = append(all, kept{b: b, left: in.split()})
		default: // a handler may change it
			for i := range min(len(b), 64) {
				b[i] = 0xDD
			}
		}
		if len(all) > 30 {
			all = checkKept(t, all)
		}
		if in.ready() != (in.w-in.r >= lengthSize && int(binary.BigEndian.Uint64(in.chunk[in.r:])) <= in.w-in.r-lengthSize) {
			t.Error("ready is not right")
		}
	}
	checkKept(t, all)
	if interrupts == 0 {
		t.Error("nothing interrupted it")
	}
	in.close()
	if in.chunk != nil || in.large != nil {
		t.Error("memory after the end")
	}
	if c := in.stats.messagesIn.Load(); c != uint64(n) {
		t.Errorf("%d counted", c)
	}
}

func checkKept(t *testing.T, all []kept) []kept {
	t.Helper()
	for _, k := range all {
		if _, _, err := checkContent(k.b); err != nil {
			t.Fatalf("kept memory was used again: %v", err)
		}
		if k.left != nil {
			putChunk(k.left)
		}
	}
	return all[:0]
}

// An interrupt and a resume at the same moment do not look like a stall.
func TestReaderResumeAndInterrupt(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		if way.tiny {
			return
		}
		here, there, raw := way.pair(t)
		c := &lateDeadline{Conn: here, late: make(chan struct{}), resumed: make(chan struct{})}
		in := testReader(c, raw, 1<<10, time.Minute)
		var wg sync.WaitGroup
		in.interrupt() // the first, for which the reader resumes
		if _, _, err := in.next(); !errors.Is(err, errInterrupted) {
			t.Fatal(err)
		}
		c.armed.Store(true)
		wg.Go(in.interrupt) // the second comes between
		<-c.late
		wg.Go(func() { in.resume(); close(c.resumed) })
		wg.Wait()
		go func() { _, _ = there.Write(frameOf([]byte("x"))) }()
		for {
			b, _, err := in.next()
			if errors.Is(err, errInterrupted) {
				in.resume()
				continue
			}
			if err != nil || string(b) != "x" {
				t.Errorf("%q, %v", b, err)
			}
			break
		}
	})
}

// lateDeadline sets the deadline of an interrupt as late as can be: after a resume, if
// that does not wait for it.
type lateDeadline struct {
	net.Conn
	armed         atomic.Bool
	late, resumed chan struct{}
}

func (c *lateDeadline) SetReadDeadline(t time.Time) error {
	if t.Equal(longAgo) && c.armed.CompareAndSwap(true, false) {
		close(c.late)
		select {
		case <-c.resumed:
		case <-time.After(100 * time.Millisecond):
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// A reader that waits for a message has no memory.
func TestReaderIdleHasNoMemory(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		here, there, raw := way.pair(t)
		in := testReader(here, raw, 1<<20, time.Minute)
		for _, size := range []int{0, 5, inPlace, inPlace + 1, 300_000} {
			go func() { _, _ = there.Write(append(frameOf(pattern(3)), frameOf(pattern(size))...)) }()
			for _, want := range []int{3, size} {
				if b, _, err := in.next(); err != nil || !bytes.Equal(b, pattern(want)) {
					t.Fatal(err)
				}
			}
			in.scratch = getChunk()
			for wait := time.Millisecond; in.scratch != nil && wait < late; wait *= 2 { // until it comes to wait
				time.AfterFunc(wait, in.interrupt)
				if _, _, err := in.next(); !errors.Is(err, errInterrupted) {
					t.Fatal(err)
				}
				in.resume()
			}
			if in.chunk != nil || in.large != nil || in.scratch != nil {
				t.Errorf("after %d bytes: chunk %v, large %v, scratch %v", size, in.chunk != nil, in.large != nil, in.scratch != nil)
			}
		}
	})
}

// A claim costs what came of it, and the whole of it no more than twice its size.
func TestReaderClaims(t *testing.T) {
	const limit = 8 << 20
	everyWay(t, func(t *testing.T, way way) {
		if way.tiny {
			return
		}
		for _, came := range []int{0, 1, 60_000, 70_000, 200_000, 1 << 20, limit} {
			here, there, raw := way.pair(t)
			in := testReader(here, raw, limit, time.Minute)
			go func() {
				_, _ = there.Write(binary.BigEndian.AppendUint64(nil, limit))
				_, _ = there.Write(make([]byte, came))
				_ = there.Close()
			}()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := in.next()
			runtime.ReadMemStats(&after)
			if came < limit && !errors.Is(err, io.ErrUnexpectedEOF) || came == limit && err != nil {
				t.Fatal(err)
			}
			// Memory doubles, so that all the steps together are twice the last.
			if got := after.TotalAlloc - before.TotalAlloc; got > uint64(5*came)+300<<10 {
				t.Errorf("%d bytes of %d: allocated %d", came, limit, got)
			}
			if in.large != nil && cap(in.large.b) > max(2*came, chunkSize)+chunkSize {
				// but for what somebody else has left
				if got := after.TotalAlloc - before.TotalAlloc; got >= uint64(cap(in.large.b)) {
					t.Errorf("%d bytes of %d: has %d", came, limit, cap(in.large.b))
				}
			}
			in.close()
		}
	})
}

// A peer may rest between messages, and in one only for the stall timeout.
func TestReaderStall(t *testing.T) {
	const stall = 10 * time.Second
	large := frameOf(make([]byte, 5*stallStep))
	for _, test := range []struct {
		name  string
		write func(c net.Conn)
		n     int           // messages
		after time.Duration // the error; 0: an orderly end
	}{
		{"pauses between", func(c net.Conn) {
			for range 3 {
				time.Sleep(10 * stall)
				_, _ = c.Write(frameOf(pattern(100)))
			}
			time.Sleep(10 * stall)
			_ = c.Close()
		}, 3, 0},
		{"trickle of a length", func(c net.Conn) {
			for _, b := range frameOf(nil) {
				time.Sleep(2 * time.Second)
				_, _ = c.Write([]byte{b})
			}
		}, 0, 2*time.Second + stall},
		{"trickle of a body", func(c net.Conn) {
			for _, b := range frameOf(pattern(100)) {
				_, _ = c.Write([]byte{b})
				time.Sleep(time.Second)
			}
		}, 0, stall},
		{"trickle after a message", func(c net.Conn) {
			_, _ = c.Write(append(frameOf(pattern(9)), 0))
			for range lengthSize - 1 {
				time.Sleep(stall - time.Second)
				_, _ = c.Write([]byte{0})
			}
		}, 1, stall},
		{"large and steady", func(c net.Conn) {
			for b := large; len(b) > 0; b = b[min(len(b), stallStep):] {
				_, _ = c.Write(b[:min(len(b), stallStep)])
				time.Sleep(stall - time.Second)
			}
			_ = c.Close()
		}, 1, 0},
		{"large and slow", func(c net.Conn) {
			for b := large; len(b) > 0; b = b[min(len(b), stallStep/2):] {
				_, _ = c.Write(b[:min(len(b), stallStep/2)])
				time.Sleep(stall - time.Second)
			}
		}, 0, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				in := testReader(here, nil, 1<<20, stall)
				var writing sync.WaitGroup
				writing.Go(func() { test.write(there) })
				began := time.Now()
				n := 0
				var err error
				for err == nil {
					if _, _, err = in.next(); err == nil {
						n++
					}
				}
				took := time.Since(began)
				if n != test.n {
					t.Errorf("%d messages, want %d", n, test.n)
				}
				switch {
				case test.after == 0 && !errors.Is(err, io.EOF),
					test.after != 0 && !errors.Is(err, os.ErrDeadlineExceeded),
					test.after > 0 && took != test.after:
					t.Errorf("after %v: %v", took, err)
				}
				_ = here.Close()
				_ = there.Close()
				writing.Wait()
			})
		})
	}
}

func TestReaderStallOnSocket(t *testing.T) {
	const stall = 50 * time.Millisecond
	here, there := loopback(t)
	in := testReader(here, rawConn(here), 1<<20, stall)
	var over atomic.Bool
	go func() {
		_, _ = there.Write(frameOf([]byte("a")))
		time.Sleep(3 * stall)
		_, _ = there.Write(frameOf([]byte("b")))
		time.Sleep(3 * stall)
		for _, b := range frameOf(pattern(100_000)) {
			if over.Load() {
				return
			}
			_, _ = there.Write([]byte{b})
			time.Sleep(stall / 10)
		}
	}()
	for _, want := range []string{"a", "b"} {
		if b, _, err := in.next(); err != nil || string(b) != want {
			t.Fatalf("%q, %v", b, err)
		}
	}
	_, _, err := in.next()
	over.Store(true)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
