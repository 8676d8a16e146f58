package sp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// tests of this file and the next run that many rounds of what is random.
func rounds(n int) int {
	if k, err := strconv.Atoi(os.Getenv("SP_TEST_ROUNDS")); err == nil && k > 0 {
		return n * k
	}
	return n
}

// late is when something that takes milliseconds will not happen any more.
const late = 20 * time.Second

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(late); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", late, what)
		}
	}
}

func loopback(t testing.TB) (here, there *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// way is how a writer or reader gets at its connection.
type way struct {
	name string
	tiny bool // socket buffers
	pair func(t testing.TB) (here, there net.Conn, raw syscall.RawConn)
}

var ways = []way{
	{"plain", false, func(t testing.TB) (net.Conn, net.Conn, syscall.RawConn) {
		a, b := net.Pipe()
		t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
		return a, b, nil
	}},
	{"raw", false, func(t testing.TB) (net.Conn, net.Conn, syscall.RawConn) {
		a, b := loopback(t)
		return a, b, rawConn(a)
	}},
	{"tiny", true, func(t testing.TB) (net.Conn, net.Conn, syscall.RawConn) {
		a, b := loopback(t)
		_ = a.SetWriteBuffer(4 << 10)
		_ = b.SetReadBuffer(256 << 10) // a window below a segment of loopback's would cost 200 ms each
		return a, b, rawConn(a)
	}},
}

func everyWay(t *testing.T, test func(t *testing.T, way way)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) { test(t, w) })
	}
}

// testWriter is a writer on conn, as a pipe has it.
func testWriter(conn net.Conn, raw syscall.RawConn, limit int, stall time.Duration) *writer {
	return newWriter(conn, raw, limit, stall, &counters{}, func(error) { _ = conn.Close() })
}

// end ends a writer as a pipe does.
func (w *writer) endForTest() {
	w.close(ErrClosed)
	_ = w.conn.Close()
	w.wait()
}

// content is what message seq of a sender has, at least 9 bytes.
func content(sender byte, seq uint32, size int) []byte {
	b := make([]byte, max(size, 9))
	b[0] = sender
	binary.BigEndian.PutUint32(b[1:], seq)
	binary.BigEndian.PutUint32(b[5:], uint32(len(b)))
	at := (int(sender)*977 + int(seq)*61) % 65521
	for to := b[9:]; len(to) > 0; at = 0 {
		to = to[copy(to, noise[at:]):]
	}
	return b
}

// noise is long, and of no power of two.
var noise = func() []byte {
	b := make([]byte, 1<<17+13)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func checkContent(b []byte) (sender byte, seq uint32, err error) {
	if len(b) < 9 {
		return 0, 0, fmt.Errorf("a message of %d bytes", len(b))
	}
	sender, seq = b[0], binary.BigEndian.Uint32(b[1:])
	if want := content(sender, seq, len(b)); !bytes.Equal(b, want) {
		i := 0
		for b[i] == want[i] {
			i++
		}
		return 0, 0, fmt.Errorf("message %d of sender %d, %d bytes: wrong from byte %d on: % x", seq, sender, len(b), i, b[i:min(i+8, len(b))])
	}
	return sender, seq, nil
}

// someSize is a size around the steps of reader and writer.
func someSize(r *rand.Rand, most int) int {
	var n int
	switch r.IntN(12) {
	case 0:
		n = inPlace - lengthSize - 2 + r.IntN(12)
	case 1:
		n = inPlace - 2 + r.IntN(5)
	case 2:
		n = chunkSize - lengthSize - 2 + r.IntN(12)
	case 3:
		n = r.IntN(4 * chunkSize)
	case 4, 5:
		n = r.IntN(inPlace)
	default:
		n = r.IntN(300)
	}
	return min(n, most)
}

// cut divides b at random; every part is a copy.
func cut(r *rand.Rand, b []byte) [][]byte {
	var parts [][]byte
	for len(b) > 0 {
		n := len(b)
		if len(parts) < 5 && r.IntN(2) == 0 {
			n = r.IntN(len(b) + 1)
		}
		parts = append(parts, bytes.Clone(b[:n]))
		b = b[n:]
	}
	return parts
}

// scribbler takes memory without an owner and writes into it, so that who uses some
// that it gave back too early sees it.
func scribbler(wg *sync.WaitGroup) (stop func()) {
	var ended atomic.Bool
	wg.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		for !ended.Load() {
			c := getChunk()
			at := r.IntN(chunkSize - 4096)
			for i := range c[at : at+4096] {
				c[at+i] = 0xEE
			}
			putChunk(c)
			b := getBody(1 << r.IntN(19))
			for i := range b.b[:4096] {
				b.b[i] = 0xEE
			}
			putBody(b)
			time.Sleep(50 * time.Microsecond) // lest it takes a whole processor
		}
	})
	return func() { ended.Store(true) }
}

// readSome reads frames from conn in random steps until n have come.
func readSome(r *rand.Rand, conn io.Reader, n int, frame func(b []byte) error) error {
	var buf []byte
	step := make([]byte, 128<<10)
	for n > 0 {
		most := 1 << r.IntN(18)
		k, err := conn.Read(step[:1+r.IntN(most)])
		buf = append(buf, step[:k]...)
		for len(buf) >= lengthSize {
			size := binary.BigEndian.Uint64(buf)
			if size > 64<<20 {
				return fmt.Errorf("a length of %#x", size)
			}
			if uint64(len(buf)-lengthSize) < size {
				break
			}
			if err := frame(buf[lengthSize : lengthSize+size]); err != nil {
				return err
			}
			n--
			buf = buf[lengthSize+size:]
		}
		if err != nil && n > 0 {
			return fmt.Errorf("%d frames are missing: %w", n, err)
		}
		if r.IntN(8) == 0 {
			runtime.Gosched()
		}
	}
	if len(buf) > 0 {
		return fmt.Errorf("%d bytes more than were sent", len(buf))
	}
	return nil
}

// Whatever senders, sizes, parts and urgencies there are, all messages leave once, in
// the order of each sender, and as they were when send was called.
func TestWriterModel(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		for round := range rounds(1) {
			writerModel(t, way, uint64(round))
		}
	})
}

func writerModel(t *testing.T, way way, seed uint64) {
	senders, each, most, limit := 4, 200, 1<<20, 1<<18
	if way.tiny {
		each, most = 40, 40<<10
	}
	here, there, raw := way.pair(t)
	w := testWriter(here, raw, limit, 0)
	defer w.endForTest()
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer scribbler(&helpers)()
	var wg sync.WaitGroup
	var left atomic.Int32
	left.Store(int32(senders))
	for s := range senders {
		wg.Go(func() {
			defer left.Add(-1)
			r := rand.New(rand.NewPCG(seed, uint64(s)))
			unflushed := false
			for seq := range each {
				body := content(byte(s), uint32(seq), someSize(r, most))
				parts := cut(r, body)
				var head []byte
				if r.IntN(2) == 0 {
					head, parts = parts[0], parts[1:]
				}
				if len(head) > inPlace { // no role has a large one
					head, parts = nil, slices.Insert(parts, 0, head)
				}
				u := urgency(r.IntN(4))
				if _, err := w.send(t.Context(), time.Time{}, u, head, parts...); err != nil {
					t.Errorf("sender %d: %v", s, err)
					return
				}
				clear(head)
				for _, p := range parts {
					clear(p)
				}
				if unflushed = unflushed || u == later; unflushed && r.IntN(3) == 0 {
					w.flush()
					unflushed = false
				}
				if r.IntN(20) == 0 {
					time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond) // the queue rests
				}
			}
			w.flush()
		})
	}
	wg.Go(func() { // as readBatch collects
		for left.Load() > 0 {
			w.collecting.Store(true)
			runtime.Gosched()
			w.collecting.Store(false)
			w.flush()
			time.Sleep(20 * time.Microsecond)
		}
		w.flush()
	})
	next := make([]uint32, senders)
	_ = there.SetReadDeadline(time.Now().Add(2 * late))
	err := readSome(rand.New(rand.NewPCG(seed, 99)), there, senders*each, func(b []byte) error {
		s, seq, err := checkContent(b)
		if err != nil {
			return err
		}
		if int(s) >= senders || seq != next[s] {
			return fmt.Errorf("message %d of sender %d", seq, s)
		}
		next[s]++
		return nil
	})
	if err != nil {
		t.Error(err)
		w.endForTest() // nobody waits on
	}
	wg.Wait()
	if err != nil {
		return
	}
	if err := w.drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n, b := w.pending(); n != 0 || b != 0 || w.queued() != 0 || w.reserved != 0 || len(w.claims) != 0 {
		t.Errorf("left: %d messages, %d bytes, %d queued, %d reserved, %d claims", n, b, w.queued(), w.reserved, len(w.claims))
	}
	if n := w.stats.messagesOut.Load(); n != uint64(senders*each) {
		t.Errorf("%d counted", n)
	}
	until(t, "the writer rests", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.busy && w.tail == nil
	})
}

// A message needs no other one to leave.
func TestWriterLoneMessage(t *testing.T) {
	sizes := []int{0, 1, inPlace - lengthSize, inPlace - lengthSize + 1, inPlace, inPlace + 1, chunkSize - 4, chunkSize, 3 * chunkSize}
	everyWay(t, func(t *testing.T, way way) {
		here, there, raw := way.pair(t)
		w := testWriter(here, raw, 1<<20, 0)
		defer w.endForTest()
		_ = there.SetReadDeadline(time.Now().Add(2 * late))
		for _, size := range sizes {
			if way.tiny && size == 3*chunkSize {
				continue
			}
			for _, u := range []urgency{atOnce, together, behind, later} {
				for _, collecting := range []bool{false, true} {
					for _, soon := range []bool{false, true} {
						if !soon { // as after a pause
							w.mu.Lock()
							w.rested = time.Time{}
							w.mu.Unlock()
						}
						w.collecting.Store(collecting)
						body := pattern(size)
						parts := [][]byte{bytes.Clone(body[:size/3]), bytes.Clone(body[size/3:])}
						got := make(chan []byte, 1)
						go func() {
							b := make([]byte, lengthSize+size)
							_, _ = io.ReadFull(there, b)
							got <- b
						}()
						if _, err := w.send(t.Context(), time.Time{}, u, nil, parts...); err != nil {
							t.Fatal(err)
						}
						clear(parts[0])
						clear(parts[1])
						lent := raw != nil && size-size/3 > inPlace
						if (u == later || u == together && collecting) && !lent {
							if n, _ := w.pending(); n != 1 {
								t.Fatalf("%d bytes, urgency %d: it did not wait for the flush", size, u)
							}
							w.collecting.Store(false)
							w.flush()
						}
						select {
						case b := <-got:
							if !bytes.Equal(b, frameOf(body)) {
								t.Fatalf("%d bytes, urgency %d: not what was sent", size, u)
							}
						case <-time.After(late):
							t.Fatalf("%d bytes, urgency %d, collecting %v: it does not leave", size, u, collecting)
						}
						until(t, "the writer rests", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return !w.busy })
					}
				}
			}
		}
	})
}

// What was left for later leaves when somebody waits for its room, or drains.
func TestWriterLaterMakesRoom(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		here, there, raw := way.pair(t)
		w := testWriter(here, raw, 100, 0)
		defer w.endForTest()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		ctx, cancel := context.WithTimeout(t.Context(), late)
		defer cancel()
		for range 20 {
			if _, err := w.send(ctx, time.Time{}, later, nil, make([]byte, 60)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.drain(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// While nobody reads, limit bytes are queued and no more, but for one that is larger;
// who waits is served in order, and room goes to nobody who has given up.
func TestWriterRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		w := testWriter(here, nil, 1000, 0)
		var mu sync.Mutex
		var order []int
		var errs = map[int]error{}
		send := func(ctx context.Context, deadline time.Time, id, size int) {
			go func() {
				_, err := w.send(ctx, deadline, behind, nil, make([]byte, size-lengthSize))
				mu.Lock()
				order = append(order, id)
				errs[id] = err
				mu.Unlock()
			}()
			synctest.Wait()
		}
		told := func(id int) error {
			mu.Lock()
			defer mu.Unlock()
			return errs[id]
		}
		check := func(want ...int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(order, want) {
				t.Fatalf("done: %v, want %v", order, want)
			}
		}
		read := func(n int) {
			_, _ = io.CopyN(io.Discard, there, int64(n))
			synctest.Wait()
		}
		bg := t.Context()
		send(bg, time.Time{}, 0, 5000) // larger than the limit, and alone
		send(bg, time.Time{}, 1, 10)
		check(0)
		read(4999)
		// A write of up to stallStep ends as a whole.
		check(0)
		read(1)
		check(0, 1)
		send(bg, time.Time{}, 2, 990)
		check(0, 1, 2)
		ctx, cancel := context.WithCancel(bg)
		send(ctx, time.Time{}, 3, 500)
		send(bg, time.Now().Add(time.Second), 4, 600)
		send(bg, time.Time{}, 5, 1000)
		send(bg, time.Time{}, 6, 10)
		send(bg, time.Time{}, 7, 8)
		check(0, 1, 2)
		cancel()
		check(0, 1, 2, 3)
		if !errors.Is(told(3), context.Canceled) {
			t.Errorf("3: %v", told(3))
		}
		began := time.Now()
		time.Sleep(time.Second)
		check(0, 1, 2, 3, 4)
		if took := time.Since(began); !errors.Is(told(4), context.DeadlineExceeded) || took != time.Second {
			t.Errorf("4: %v after %v", told(4), took)
		}
		read(10) // 990 are left: no room for 5, and 6 and 7 must not overtake it
		check(0, 1, 2, 3, 4)
		read(990)
		check(0, 1, 2, 3, 4, 5)
		read(1000)
		mu.Lock()
		slices.Sort(order) // 6 and 7 were granted together
		mu.Unlock()
		check(0, 1, 2, 3, 4, 5, 6, 7)
		read(18)
		if w.reserved != 0 || len(w.claims) != 0 || w.queued() != 0 {
			t.Errorf("left: %d reserved, %d claims, %d queued", w.reserved, len(w.claims), w.queued())
		}
		mu.Lock()
		order = nil
		mu.Unlock()
		// One that gives up makes way for those behind it.
		send(bg, time.Time{}, 8, 900)
		check(8)
		ctx, cancel = context.WithCancel(bg)
		send(ctx, time.Time{}, 9, 200)
		send(bg, time.Time{}, 10, 100)
		mu.Lock()
		order = nil
		mu.Unlock()
		cancel()
		synctest.Wait()
		mu.Lock()
		slices.Sort(order)
		mu.Unlock()
		check(9, 10)
		if !errors.Is(told(9), context.Canceled) || told(10) != nil {
			t.Errorf("9: %v, 10: %v", told(9), told(10))
		}
		// The end is told to all who wait.
		send(bg, time.Time{}, 11, 900)
		send(bg, time.Time{}, 12, 900)
		w.endForTest()
		synctest.Wait()
		if told(11) == nil || told(12) == nil || w.reserved != 0 || len(w.claims) != 0 {
			t.Errorf("after the end: %v, %v, %d reserved, %d claims", told(11), told(12), w.reserved, len(w.claims))
		}
		if n, _ := w.pending(); n != 2 {
			t.Errorf("%d pending", n)
		}
		_ = there.Close()
	})
}

// Those who wait for room when no more is accepted hear so as the queue empties, one
// after the other.
func TestWriterShutTellsAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		w := testWriter(here, nil, 100, 0)
		if _, err := w.send(t.Context(), time.Time{}, behind, nil, make([]byte, 92)); err != nil {
			t.Fatal(err)
		}
		var shut atomic.Int32
		for range 3 {
			go func() {
				if _, err := w.send(t.Context(), time.Time{}, behind, nil, make([]byte, 92)); errors.Is(err, errShut) {
					shut.Add(1)
				}
			}()
		}
		synctest.Wait()
		w.shut()
		_, _ = io.CopyN(io.Discard, there, 100)
		synctest.Wait()
		if n := shut.Load(); n != 3 {
			t.Errorf("%d of 3 heard of it", n)
		}
		w.endForTest()
		_ = there.Close()
	})
}

// Many who wait, and give up at random: the limit holds and nothing is lost of it.
func TestWriterRoomAddsUp(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		const limit, most = 20 << 10, 8 << 10
		here, there, raw := way.pair(t)
		w := testWriter(here, raw, limit, 0)
		defer w.endForTest()
		var got atomic.Int64
		var reader sync.WaitGroup
		reader.Go(func() {
			r := rand.New(rand.NewPCG(5, 6))
			b := make([]byte, 16<<10)
			for {
				n, err := there.Read(b[:1+r.IntN(len(b)-1)])
				got.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		var sent atomic.Int64
		var wg sync.WaitGroup
		for s := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(s)))
				for i := range 150 {
					ctx, cancel := context.WithCancel(t.Context())
					var deadline time.Time
					switch i % 4 {
					case 0:
						go cancel()
					case 1:
						deadline = time.Now().Add(time.Duration(r.IntN(200)) * time.Microsecond)
					}
					size := r.IntN(most)
					_, err := w.send(ctx, deadline, urgency(r.IntN(4)), nil, make([]byte, size))
					switch {
					case err == nil:
						sent.Add(int64(size + lengthSize))
					case i%4 == 0 && errors.Is(err, context.Canceled), i%4 == 1 && errors.Is(err, context.DeadlineExceeded):
					default:
						t.Errorf("%v", err)
					}
					cancel()
					w.mu.Lock()
					if q := w.queued() + w.reserved; q > limit || q < 0 || w.reserved < 0 {
						t.Errorf("%d queued, %d reserved", w.queued(), w.reserved)
					}
					w.mu.Unlock()
				}
			})
		}
		wg.Wait()
		if err := w.drain(t.Context()); err != nil {
			t.Error(err)
		}
		until(t, "all has come", func() bool { return got.Load() == sent.Load() })
		w.mu.Lock()
		if w.reserved != 0 || len(w.claims) != 0 {
			t.Errorf("left: %d reserved, %d claims", w.reserved, len(w.claims))
		}
		w.mu.Unlock()
		w.endForTest()
		reader.Wait()
	})
}

var errBroken = errors.New("broken")

// brokenConn takes so many bytes and breaks then; or else beside the end of the message
// that comes then.
type brokenConn struct {
	memConn
	left   int
	slow   bool
	beside bool
	by     int // bytes
	frame  int // where the message begins that is being written
}

// aim says where to break, once the length of the message that comes then is known.
func (c *brokenConn) aim(b []byte) {
	all := append(bytes.Clone(c.out.Bytes()), b...)
	for c.beside && len(all) >= c.frame+lengthSize {
		next := c.frame + lengthSize + int(binary.BigEndian.Uint64(all[c.frame:]))
		if next > c.out.Len()+c.left {
			c.left, c.beside = next+c.by-c.out.Len(), false
			return
		}
		c.frame = next
	}
}

func (c *brokenConn) Write(b []byte) (int, error) {
	if c.slow {
		runtime.Gosched()
	}
	c.aim(b)
	n := len(b)
	if c.left -= n; c.left < 0 && !c.beside {
		n += c.left
		c.left = 0
	}
	_, _ = c.out.Write(b[:n])
	if n < len(b) {
		return n, errBroken
	}
	return n, nil
}

// However a connection breaks, every message accepted is either written as a whole, or
// returned by unsent, and never in part seen as one.
func TestWriterBreaks(t *testing.T) {
	everyWay(t, func(t *testing.T, way way) {
		n := 60
		if way.tiny {
			n = 8
		}
		for round := range rounds(n) {
			r := rand.New(rand.NewPCG(8, uint64(round)))
			after := r.IntN(1 << r.IntN(20))
			var w *writer
			var received func() []byte
			exact := false
			if way.name == "plain" && round%2 == 0 {
				exact = true
				c := &brokenConn{left: after, slow: round%4 == 0, beside: round%8 > 2, by: round/8%3 - 1}
				w = testWriter(c, nil, 1<<18, 0)
				received = c.out.Bytes
				if c.beside {
					after = -1
				}
			} else {
				here, there, raw := way.pair(t)
				w = testWriter(here, raw, 1<<18, 0)
				var buf []byte
				over := make(chan struct{})
				if way.tiny {
					after = min(after, 64<<10)
				}
				abrupt := r.IntN(2) == 0
				go func() {
					defer close(over)
					buf, _ = io.ReadAll(io.LimitReader(there, int64(after)))
					if tcp, ok := there.(*net.TCPConn); ok && abrupt {
						_ = tcp.SetLinger(0)
					}
					_ = there.Close()
				}()
				received = func() []byte { <-over; return buf }
			}
			breakOne(t, w, received, after, exact, uint64(round))
			if t.Failed() {
				t.Fatalf("round %d, broken after %d bytes", round, after)
			}
		}
	})
}

func breakOne(t *testing.T, w *writer, received func() []byte, after int, exact bool, seed uint64) {
	type sent struct {
		at   uint64
		body []byte
	}
	var mu sync.Mutex
	var all []sent
	var wg sync.WaitGroup
	for s := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(s)))
			for seq := range 100_000 {
				body := content(byte(s), uint32(seq), someSize(r, 1<<18))
				parts := cut(r, body)
				at, err := w.send(t.Context(), time.Time{}, urgency(r.IntN(3)), nil, parts...)
				for _, p := range parts {
					clear(p)
				}
				if err != nil {
					return
				}
				mu.Lock()
				all = append(all, sent{at, body})
				mu.Unlock()
			}
			t.Error("it does not break")
		})
	}
	wg.Wait()
	w.endForTest()
	slices.SortFunc(all, func(a, b sent) int { return int(int64(a.at) - int64(b.at)) })
	var stream []byte
	for _, m := range all {
		stream = append(stream, frameOf(m.body)...)
		if uint64(len(stream)) != m.at {
			t.Fatalf("a message ends at %d, by its own account at %d", len(stream), m.at)
		}
	}
	got := received()
	if !bytes.HasPrefix(stream, got) {
		t.Error("what was received is no prefix of what was accepted")
	}
	if exact && after < 0 {
		after = len(got)
	}
	if exact && len(got) != after || len(got) > int(w.written) {
		t.Errorf("%d bytes received, %d written, broken after %d", len(got), w.written, after)
	}
	if exact && w.written != uint64(after) {
		t.Errorf("%d written of %d", w.written, after)
	}
	written := 0
	for i, m := range all {
		is := w.isWritten(m.at)
		if is != (m.at <= w.written) {
			t.Errorf("message to %d: written %v, of %d", m.at, is, w.written)
		}
		if is {
			written = i + 1
		}
	}
	messages, size := w.pending()
	unsent := w.unsent()
	if messages != len(unsent) || len(unsent) != len(all)-written {
		t.Errorf("%d accepted, %d written, %d pending, %d unsent", len(all), written, messages, len(unsent))
		return
	}
	for i, b := range unsent {
		size -= len(b)
		if !bytes.Equal(b, all[written+i].body) {
			t.Errorf("unsent message %d is another than was sent", i)
		}
	}
	if size != 0 {
		t.Errorf("pending was %d bytes more than unsent", size)
	}
	if n := w.unsent(); len(n) != 0 {
		t.Errorf("%d once more", len(n))
	}
	if err := w.drain(t.Context()); written < len(all) && err == nil {
		t.Error("drained")
	}
}

// drain waits for what was accepted before it, and not for more.
func TestWriterDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		w := testWriter(here, nil, 1<<20, 0)
		send := func(size int) {
			if _, err := w.send(t.Context(), time.Time{}, later, nil, make([]byte, size-lengthSize)); err != nil {
				t.Fatal(err)
			}
		}
		drain := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() { done <- w.drain(ctx) }()
			synctest.Wait()
			return done
		}
		if err := w.drain(t.Context()); err != nil {
			t.Error(err)
		}
		send(100)
		first := drain(t.Context())
		send(200)
		second := drain(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		third := drain(ctx)
		if len(first)+len(second) != 0 {
			t.Fatal("drained before a byte was written")
		}
		_, _ = io.CopyN(io.Discard, there, 100)
		synctest.Wait()
		if len(first) != 1 || <-first != nil || len(second) != 0 {
			t.Error("the first message alone is written")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(third) != 1 || !errors.Is(<-third, context.DeadlineExceeded) || len(w.waits) != 1 {
			t.Error("the third drain does not end with its context")
		}
		_, _ = io.CopyN(io.Discard, there, 200)
		synctest.Wait()
		if len(second) != 1 || <-second != nil {
			t.Error("all is written")
		}
		send(300)
		fourth := drain(t.Context())
		w.endForTest()
		synctest.Wait()
		if len(fourth) != 1 || !errors.Is(<-fourth, ErrClosed) {
			t.Error("the fourth drain does not end with the writer")
		}
		_ = there.Close()
	})
}

// A sender has its large parts back soon, also when the peer takes nothing; and the
// peer gets them as they were.
func TestWriterLendsNotForLong(t *testing.T) {
	here, there := loopback(t)
	raw := rawConn(here)
	if raw == nil {
		t.Skip("nothing is lent here")
	}
	w := testWriter(here, raw, 64<<20, 0)
	defer w.endForTest()
	const n, size = 12, 600 << 10
	var senders sync.WaitGroup
	for s := range 3 {
		senders.Go(func() {
			for seq := range n / 3 {
				b := content(byte(s), uint32(seq), size)
				if _, err := w.send(t.Context(), time.Time{}, behind, nil, b[:100], b[100:size/2], b[size/2:]); err != nil {
					t.Error(err)
				}
				for i := range b {
					b[i] = 0xAA
				}
			}
		})
	}
	senders.Wait() // nobody reads yet
	_ = there.SetReadDeadline(time.Now().Add(2 * late))
	err := readSome(rand.New(rand.NewPCG(1, 1)), there, n, func(b []byte) error {
		_, _, err := checkContent(b)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
func TestWriterForgetsWhatIsWritten(t *testing.T) {
	for name, parts := range map[string][][]byte{
		"across chunks":           {make([]byte, inPlace)},
		"small after large":       {make([]byte, 2*inPlace), make([]byte, 100)},
		"small, large, and small": {make([]byte, 100), make([]byte, 2*inPlace), make([]byte, 100)},
		"many small":              {make([]byte, inPlace/2), make([]byte, inPlace/2), make([]byte, inPlace/2)},
	} {
		stats := &counters{}
		w := newWriter(nil, nil, 8<<20, 0, stats, func(error) {})
		size := lengthSize
		for _, p := range parts {
			size += len(p)
		}
		const queued, messages = 4, 500
		most := 0
		for i := range messages {
			w.add(size, nil, parts)
			if i >= queued {
				w.advance(size)
			}
			most = max(most, len(w.segments))
		}
		if most > 8*queued {
			t.Errorf("%s: %d pieces of memory for %d messages", name, most, queued)
		}
		if n := stats.messagesOut.Load(); n < messages-2*queued {
			t.Errorf("%s: %d of %d messages counted", name, n, messages)
		}
	}
}
