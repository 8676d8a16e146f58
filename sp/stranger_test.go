package sp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// strangerLimit is the largest message of the roles below. It is much more than a
// stranger's bytes may cost that do not fill it.
const strangerLimit = 4 << 20

// strangerCost is what n bytes of a stranger may have us allocate: themselves, twice
// what they grow into, replies, copies of the tests, and a few chunks.
func strangerCost(n int) uint64 { return uint64(24*n + 640<<10) }

// strangerConn is a connection whose other side the fuzzer plays: it says what is in
// say, in pieces, and no more until the test hangs up.
type strangerConn struct {
	piece int // largest

	mu      sync.Mutex
	cond    sync.Cond
	say     []byte
	heard   []byte
	hungUp  bool
	isShut  bool // CloseWrite
	closed  bool
	expired bool // the read deadline has passed
}

func newStranger(say []byte, piece int) *strangerConn {
	c := &strangerConn{say: say, piece: piece}
	c.cond.L = &c.mu
	return c
}

func (c *strangerConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.expired:
			return 0, os.ErrDeadlineExceeded
		case len(c.say) > 0:
			n := copy(b[:min(len(b), c.piece)], c.say)
			c.say = c.say[n:]
			c.cond.Broadcast()
			return n, nil
		case c.hungUp:
			return 0, io.EOF
		}
		c.cond.Wait()
	}
}

func (c *strangerConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.isShut {
		return 0, net.ErrClosed
	}
	c.heard = append(c.heard, b...)
	c.cond.Broadcast()
	return len(b), nil
}

func (c *strangerConn) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.cond.Broadcast()
}

func (c *strangerConn) Close() error      { c.change(func() { c.closed = true }); return nil }
func (c *strangerConn) CloseWrite() error { c.change(func() { c.isShut = true }); return nil }
func (c *strangerConn) hangUp()           { c.change(func() { c.hungUp = true }) }
func (c *strangerConn) tell(b []byte)     { c.change(func() { c.say = append(c.say, b...) }) }

// Stall timeouts are no matter here: only an interrupt's deadline passes.
func (c *strangerConn) SetReadDeadline(t time.Time) error {
	c.change(func() { c.expired = t.Equal(longAgo) })
	return nil
}
func (c *strangerConn) SetDeadline(t time.Time) error  { return c.SetReadDeadline(t) }
func (*strangerConn) SetWriteDeadline(time.Time) error { return nil }
func (*strangerConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
}
func (*strangerConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2} }

// await waits until ok, which may look at all fields, and reports whether it came.
func (c *strangerConn) await(ok func() bool) bool {
	late := time.AfterFunc(late, func() { c.change(func() {}) })
	defer late.Stop()
	end := time.Now().Add(19 * time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	for !ok() {
		if time.Now().After(end) {
			return false
		}
		c.cond.Wait()
	}
	return true
}

// simpleFrames is what a decoder without any art makes of a stream: its messages up to
// limit bytes, and whether it breaks with a larger one then.
func simpleFrames(b []byte, limit int) (frames [][]byte, broken bool) {
	for len(b) >= 8 {
		n := binary.BigEndian.Uint64(b)
		if n > uint64(limit) {
			return frames, true
		}
		if uint64(len(b)-8) < n {
			break
		}
		frames = append(frames, b[8:8+n])
		b = b[8+n:]
	}
	return frames, false
}

// simpleRequest finds the end of a request's words: -1 for a request without an id, 0
// for one with too many of them.
func simpleRequest(b []byte) int {
	for n := 4; n <= 32; n += 4 {
		if len(b) < n {
			return -1
		}
		if b[n-4] >= 0x80 {
			return n
		}
	}
	return 0
}

type strangerServer struct {
	s       *server
	mu      sync.Mutex
	handled [][]byte
}

func (v *strangerServer) take(b []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handled = append(v.handled, bytes.Clone(b))
}

var strangerConfig = Config{MaxMessage: strangerLimit, Logger: slog.New(slog.DiscardHandler), StallTimeout: time.Hour, HandshakeTimeout: time.Hour}

// meet has the stranger come to the listener with what it says, and checks what comes
// of it. greets puts a good greeting before it.
func (v *strangerServer) meet(t *testing.T, say []byte, piece byte, greets bool, limit int, judge func(frames [][]byte, broken bool) (handled [][]byte, replies []byte, ends bool)) {
	info := v.s.sock.Info()
	ours := greeting(info.Self)
	theirs := greeting(info.Peer)
	if greets {
		say = append(theirs[:], say...)
	}
	var handled [][]byte
	var heard []byte
	ends := len(say) >= greetingSize
	if bytes.HasPrefix(say, theirs[:]) {
		frames, broken := simpleFrames(say[greetingSize:], limit)
		var replies []byte
		handled, replies, ends = judge(frames, broken)
		heard = append(ours[:], replies...)
	} else if ends || isTLS(say) {
		heard = ours[:] // so that it knows who we are
	}
	v.mu.Lock()
	v.handled = v.handled[:0]
	v.mu.Unlock()
	goroutines := runtime.NumGoroutine()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := newStranger(bytes.Clone(say), 1+int(piece)*int(piece))
	v.s.lst.(*listener).greet(c)
	if ends {
		if !c.await(func() bool { return c.closed }) {
			t.Fatal("not cut off")
		}
	} else {
		if !c.await(func() bool { return len(c.say) == 0 && (len(c.heard) >= len(heard) || len(say) < greetingSize) }) {
			t.Fatalf("%d bytes of %d were answered", len(c.heard), len(heard))
		}
		c.hangUp()
		if !c.await(func() bool { return c.closed }) {
			t.Fatal("it hung up, and is still there")
		}
	}
	until(t, "nothing is left of it", func() bool {
		pipes, pending := v.s.lst.counts()
		return pipes == 0 && pending == 0 && len(v.s.snapshot()) == 0
	})
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; !raceEnabled && got > strangerCost(len(say)) {
		t.Errorf("%d bytes had %d allocated", len(say), got)
	}
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.handled) != len(handled) {
		t.Fatalf("%d messages handled, want %d", len(v.handled), len(handled))
	}
	for i, b := range handled {
		if !bytes.Equal(v.handled[i], b) {
			t.Fatalf("message %d: % x, want % x", i, v.handled[i], b)
		}
	}
	// Replies that are not yet written when the stranger breaks the rules are lost.
	if ends && heard != nil && !bytes.HasPrefix(heard, c.heard) || !ends && !bytes.Equal(heard, c.heard) {
		t.Fatalf("it heard % x, want % x", c.heard, heard)
	}
}

func seedStrangers(f *testing.F, header string) {
	frame := func(parts ...string) string { return string(frameOf([]byte(strings.Join(parts, "")))) }
	id := "\x80\x00\x00\x01"
	for _, s := range []string{
		"",
		frame(id, "hello"), frame(id) + frame("\x00\x00\x00\x09", "\x80\x00\x00\x02", "x"),
		frame(id, "a") + frame(strings.Repeat("\x00\x00\x00\x01", 9)) + frame("\x80\x00\x00\x03", "b"),
		frame(id, "a") + frame(strings.Repeat("\x00\x00\x00\x01", 9)),
		frame(id, "a") + frame("\x00\x00\x00\x01"), frame("\x01"), frame(""), strings.Repeat(frame(""), 30),
		frame(id, "a") + "\x00\x00\x00\x00\x01\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x00\x00\x00\x00\x00\x40\x00\x00", "\x00\x00\x00\x00\x00\x40\x00\x04" + id, "\x00\x00\x00\x00\x00\x40\x00\x21" + id,
		"\x00\x00\x00\x00\x00\x3f\xff\xff" + strings.Repeat("\x80", 20_000),
		frame(id, strings.Repeat("large", 3400)) + frame("\x80\x00\x00\x02", "small"),
		frame(id, strings.Repeat("y", inPlace-4)) + frame(id, "z"),
		strings.Repeat(frame("\x80\x00\x00\x02", "many"), 300),
		header + frame(id, "x"), header[:5], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "\x15\x03\x03\x00\x02\x01\x00", "GET / HTTP/1.1\r\n\r\n",
	} {
		for _, piece := range []byte{0, 2, 255} {
			f.Add([]byte(s), piece, true)
		}
		f.Add([]byte(s), byte(255), false)
	}
}

func FuzzStrangerReplier(f *testing.F) {
	seedStrangers(f, "\x00SP\x00\x00\x30\x00\x00")
	v := &strangerServer{}
	rep, err := ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in Inbound) []byte {
		v.take(in.Body)
		switch len(in.Body) % 4 {
		case 0:
			return in.Body
		case 1:
			return append(in.Scratch, in.Body...)
		case 2:
			return in.Take()
		}
		return bytes.Clone(in.Body)
	}, strangerConfig)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = rep.Close() })
	v.s = rep.s
	f.Fuzz(func(t *testing.T, say []byte, piece byte, greets bool) {
		v.meet(t, say, piece, greets, strangerLimit+32, func(frames [][]byte, broken bool) (handled [][]byte, replies []byte, ends bool) {
			for _, b := range frames {
				switch n := simpleRequest(b); {
				case n < 0, n > 0 && len(b)-n > strangerLimit:
					return handled, replies, true
				case n > 0:
					handled = append(handled, b[n:])
					if len(b) > n || len(b[n:])%4 != 3 { // an empty reply is one, too, unless it is nil
						replies = append(replies, frameOf(b)...)
					}
				}
			}
			return handled, replies, broken
		})
	})
}

func FuzzStrangerPuller(f *testing.F) {
	seedStrangers(f, "\x00SP\x00\x00\x50\x00\x00")
	v := &strangerServer{}
	pull, err := ListenPuller("tcp://127.0.0.1:0", func(_ context.Context, in Inbound) { v.take(in.Body) }, strangerConfig)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = pull.Close() })
	v.s = pull.s
	f.Fuzz(func(t *testing.T, say []byte, piece byte, greets bool) {
		v.meet(t, say, piece, greets, strangerLimit, func(frames [][]byte, broken bool) ([][]byte, []byte, bool) {
			return frames, nil, broken
		})
	})
}

// strangerPeer is mangos' view of a connection that did not come by way of its core.
type strangerPeer struct {
	mangos.ProtocolPipe
	c *client
	o sync.Once
}

func (p *strangerPeer) Close() error {
	p.o.Do(func() { _ = p.c.tp.Close(); close(p.c.done) })
	return nil
}

// dialStranger is dial with the stranger at the other end. It returns an error when the
// greeting is none; said is what is left to say after it.
func dialStranger(t *testing.T, c *strangerConn, info mangos.ProtocolInfo, room int) (*client, error) {
	cfg, err := strangerConfig.normalized()
	if err != nil {
		t.Fatal(err)
	}
	cl := &client{url: "tcp://stranger", cfg: cfg, log: newLogger(cfg.Logger), done: make(chan struct{})}
	cl.sock = newSocket(&socketProtocol{info: info})
	set := newSettings(cfg, cfg.MaxMessage+room, &cl.stats, cl.log)
	d := &dialer{sock: cl.sock}
	greeted, peer, err := d.greet(t.Context(), c, set)
	if err != nil {
		_ = cl.sock.Close()
		_ = c.Close()
		return nil, err
	}
	cl.tp = newPipe(greeted, peer, set, nil)
	cl.tp.ours = true
	cl.pp = &strangerPeer{c: cl}
	return cl, nil
}

// dialed checks the greeting, and returns the client when it was good.
func dialed(t *testing.T, c *strangerConn, say []byte, greets bool, info mangos.ProtocolInfo, room int) *client {
	theirs := greeting(info.Peer)
	if greets {
		say = theirs[:]
	}
	good := bytes.HasPrefix(say, theirs[:])
	c.tell(say)
	if !good {
		c.hangUp()
	}
	cl, err := dialStranger(t, c, info, room)
	if (err == nil) != good {
		t.Fatalf("a greeting % x: %v", say[:min(len(say), 8)], err)
	}
	return cl
}

// requesterOn is the rest of DialRequester. Its first request has the id 1.
func requesterOn(c *client) *Requester {
	r := &Requester{
		c: c, calls: make([]*call, 8), due: math.MaxInt64, began: time.Now(),
		reading: true, take: make(chan struct{}, 1),
	}
	r.idle = time.AfterFunc(time.Hour, r.lookIdle)
	r.idle.Stop()
	r.take <- struct{}{}
	c.tp.in.keepsTime = true
	c.wg.Go(r.read)
	return r
}

func FuzzStrangerRequester(f *testing.F) {
	for calls := range byte(4) {
		seedStrangersDialed(f, calls, "\x00SP\x00\x00\x31\x00\x00")
	}
	f.Fuzz(func(t *testing.T, say []byte, piece byte, greets bool, calls byte) {
		goroutines := runtime.NumGoroutine()
		n := int(calls % 4)
		c := newStranger(nil, 1+int(piece)*int(piece))
		cl := dialed(t, c, say, greets, infoReq, wordSize)
		if cl == nil {
			return
		}
		defer cl.sock.Close()
		if !greets {
			say, n = say[greetingSize:], 0 // it has been said
		}
		r := requesterOn(cl)
		type result struct {
			reply []byte
			err   error
		}
		results := make([]chan result, n)
		heard := greetingSize
		for i := range n {
			results[i] = make(chan result, 1)
			body := []byte{'q', byte(i)}
			go func() {
				reply, err := r.Request(t.Context(), body)
				results[i] <- result{reply, err}
			}()
			heard += lengthSize + wordSize + len(body)
			if !c.await(func() bool { return len(c.heard) >= heard }) {
				t.Fatal("a request was not sent")
			}
		}
		frames, broken := simpleFrames(say, strangerLimit+wordSize)
		want := make([][]byte, n)
		var lateReplies uint64
		for _, b := range frames {
			if len(b) < 4 || b[0] < 0x80 {
				broken = true
				break
			}
			id := binary.BigEndian.Uint32(b) &^ (1 << 31)
			if id >= 1 && id <= uint32(n) && want[id-1] == nil {
				want[id-1] = b[4:]
			} else {
				lateReplies++
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if greets {
			c.tell(say)
		}
		if broken {
			select {
			case <-r.Done():
			case <-time.After(late):
				t.Fatal("not cut off")
			}
		} else {
			if !c.await(func() bool { return len(c.say) == 0 }) {
				t.Fatal("not all was read")
			}
			c.hangUp()
		}
		for i, ch := range results {
			select {
			case got := <-ch:
				if want[i] != nil && (got.err != nil || !bytes.Equal(got.reply, want[i])) {
					t.Errorf("call %d: % x, %v; want % x", i, got.reply, got.err, want[i])
				}
				if want[i] == nil && !errors.Is(got.err, ErrConnectionLost) {
					t.Errorf("call %d: % x, %v; want none", i, got.reply, got.err)
				}
			case <-time.After(late):
				t.Fatalf("call %d hangs", i)
			}
		}
		select {
		case <-r.Done():
		case <-time.After(late):
			t.Fatal("it hung up, and that was not noticed")
		}
		_ = r.Close()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; !raceEnabled && got > strangerCost(len(say)) {
			t.Errorf("%d bytes had %d allocated", len(say), got)
		}
		if st := r.Stats(); st.LateReplies != lateReplies || st.Handling != 0 {
			t.Errorf("%d late replies, want %d; %d outstanding", st.LateReplies, lateReplies, st.Handling)
		}
		until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
}

func seedStrangersDialed(f *testing.F, calls byte, header string) {
	frame := func(parts ...string) string { return string(frameOf([]byte(strings.Join(parts, "")))) }
	one, two, three := "\x80\x00\x00\x01", "\x80\x00\x00\x02", "\x80\x00\x00\x03"
	for _, s := range []string{
		"", frame(one, "r"), frame(three, "c") + frame(two, "b") + frame(one, "a"), frame(one) + frame(one, "again"),
		frame(two, strings.Repeat("large", 3400)) + frame(one, strings.Repeat("z", inPlace-4)) + frame(three, ""),
		frame("\x80\x00\x00\x77", "nobody's") + frame(one, "r"), frame("\x00\x00\x00\x01"), frame(one, "r") + frame("abc"),
		frame(one, "r") + "\x00\x00\x00\x00\x00\x40\x00\x05", "\x00\x00\x00\x00\x00\x40\x00\x04" + one + "claim",
		"\x00\x00\x00\x00\x00\x30\x00\x00" + one + strings.Repeat("x", 20_000),
		header + frame(one, "r"), header[:4], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
	} {
		f.Add([]byte(s), byte(0), true, calls)
		f.Add([]byte(s), byte(255), true, calls)
		f.Add([]byte(s), byte(3), false, calls)
	}
}

func FuzzStrangerPusher(f *testing.F) {
	for calls := range byte(3) {
		seedStrangersDialed(f, calls, "\x00SP\x00\x00\x51\x00\x00")
	}
	f.Fuzz(func(t *testing.T, say []byte, piece byte, greets bool, pushes byte) {
		goroutines := runtime.NumGoroutine()
		c := newStranger(nil, 1+int(piece)*int(piece))
		cl := dialed(t, c, say, greets, infoPush, 0)
		if cl == nil {
			return
		}
		defer cl.sock.Close()
		p := &Pusher{c: cl}
		cl.wg.Go(p.read)
		if !greets {
			say = say[greetingSize:] // it has been said
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if greets {
			c.tell(say)
		}
		ours := greeting(infoPush.Self)
		stream := bytes.Clone(ours[:])
		accepted := 0
		for i := range int(pushes) % 50 {
			body := pattern(i * 10)
			if err := p.Send(t.Context(), body[:i], body[i:]); err == nil {
				stream = append(stream, frameOf(body)...)
				accepted++
			} else if !errors.Is(err, ErrNotSent) {
				t.Error(err)
			}
		}
		if _, broken := simpleFrames(say, strangerLimit); !broken {
			if !c.await(func() bool { return len(c.say) == 0 && len(c.heard) == len(stream) }) {
				t.Fatal("not all was read and written")
			}
			c.hangUp()
		}
		select {
		case <-p.Done():
		case <-time.After(late):
			t.Fatal("its end is not noticed")
		}
		unsent := p.Unsent()
		_ = p.Close()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; !raceEnabled && got > strangerCost(len(say)+4*len(stream)) {
			t.Errorf("%d bytes had %d allocated", len(say), got)
		}
		c.mu.Lock()
		heard := c.heard
		c.mu.Unlock()
		if !bytes.HasPrefix(stream, heard) {
			t.Error("it heard what was not sent")
		}
		frames, _ := simpleFrames(heard[greetingSize:], strangerLimit)
		if len(frames)+len(unsent) != accepted {
			t.Errorf("%d accepted, %d heard, %d unsent", accepted, len(frames), len(unsent))
		}
		for _, b := range unsent {
			heard = append(heard[:len(heard):len(heard)], frameOf(b)...)
		}
		if len(frames)+len(unsent) > 0 && len(heard) == len(stream) && !bytes.Equal(heard, stream) {
			t.Error("unsent has other messages")
		}
		until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
}
