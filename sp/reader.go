package sp

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// reader takes the messages of one connection out of the stream. One system call
// brings many small ones, which are handed out where they lie; a large one is read
// into memory of its own, which grows as its bytes arrive, since a length is only a
// claim. It has a chunk only while there are bytes in it.
//
// One goroutine at a time uses it; only interrupt may be called by others.
type reader struct {
	conn  net.Conn
	raw   syscall.RawConn // nil: only conn.Read
	max   int             // of a message, bytes
	stall time.Duration
	stats *counters

	chunk     *chunk
	scratch   *chunk    // for replies, of a handler that works on what is in chunk
	r, w      int       // the bytes of it that are not consumed
	large     *body     // where the last large message is
	want      int       // size of the large message that is being read; 0: none is
	have      int       // read of it
	wasLarge  bool      // the message before this was
	midway    bool      // a message has begun
	since     int       // bytes of it that came since the stall deadline was chosen
	due       time.Time // the stall deadline; zero: not chosen
	late      bool      // the connection has a deadline
	messages  uint64    // consumed and not yet counted
	burst     int       // messages consumed since the last system call
	bytes     uint64
	into      []byte   // what the next system call reads into; nil: the chunk
	first     [64]byte // where a plain connection waits without a chunk
	n         int      // what the last system call read
	err       error
	tryRead   func(uintptr) bool
	poll      poller
	deadline  sync.Mutex // of kicked and of the connection's deadline together
	kicked    atomic.Bool
	begun     time.Time
	lastRead  atomic.Int64 // when something was read last, in nanoseconds after begun
	keepsTime bool
}

// errInterrupted is what next returns after interrupt.
var errInterrupted = errors.New("interrupted")

func newReader(conn net.Conn, raw syscall.RawConn, set *settings) *reader {
	r := &reader{conn: conn, raw: raw, max: set.maxFrame, stall: set.stallTimeout, stats: set.stats, begun: time.Now()}
	r.poll.limit = set.poll
	r.tryRead = r.readRaw
	return r
}

// next returns the next message, and waits for it. It may be used until the call
// after; own says that it has memory of its own, which keep takes.
func (r *reader) next() (message []byte, own bool, err error) {
	if r.want > 0 { // an interrupt came in the middle of it
		return r.finishLarge()
	}
	for r.w-r.r < lengthSize {
		r.midway = r.w > r.r
		if err := r.fill(); err != nil {
			return nil, false, r.cut(err)
		}
	}
	size := binary.BigEndian.Uint64(r.chunk[r.r:])
	if size > uint64(r.max) {
		return nil, false, oversized(size, r.max)
	}
	n := int(size)
	if n > inPlace {
		r.r += lengthSize
		r.beginLarge(n)
		return r.finishLarge()
	}
	for r.w-r.r < lengthSize+n {
		r.midway = true
		if err := r.fill(); err != nil {
			return nil, false, r.cut(err)
		}
	}
	message = r.chunk[r.r+lengthSize : r.r+lengthSize+n : r.r+lengthSize+n]
	r.r += lengthSize + n
	r.wasLarge = false
	r.count(n)
	return message, false, nil
}

func (r *reader) count(n int) {
	r.midway, r.since, r.due = false, 0, time.Time{}
	r.messages++
	r.bytes += uint64(n)
	r.burst++
	if r.w-r.r < lengthSize {
		r.account()
	}
}

// account adds what was consumed to the counters, which all connections share.
func (r *reader) account() {
	if r.messages > 0 {
		r.stats.messagesIn.Add(r.messages)
		r.stats.bytesIn.Add(r.bytes)
		r.messages, r.bytes = 0, 0
	}
}

// ready reports whether next would not have to wait for a small message.
func (r *reader) ready() bool {
	if r.w-r.r < lengthSize {
		return false
	}
	size := binary.BigEndian.Uint64(r.chunk[r.r:])
	return size <= uint64(r.w-r.r-lengthSize) || size > uint64(r.max)
}

// weight is the size of the memory that keep would give.
func (r *reader) weight() int { return cap(r.large.b) }

// keep gives the memory of the message that next returned last to the caller; it must
// be the message's own.
func (r *reader) keep() { r.large = nil }

// split leaves what next returned last, and scratch, to those who still use them, and
// goes on in other memory. They give back the chunks that they have noted before.
func (r *reader) split() (left *chunk) {
	left, r.large, r.scratch = r.chunk, nil, nil
	if left != nil {
		r.chunk = getChunk()
		r.w = copy(r.chunk[:], left[r.r:r.w])
		r.r = 0
	}
	return left
}

// beginLarge has a message of n bytes read into memory of its own.
func (r *reader) beginLarge(n int) {
	if r.large != nil && cap(r.large.b) < n {
		putBody(r.large)
		r.large = nil
	}
	if r.large == nil {
		r.large = getBody(n)
	}
	r.want, r.have = n, copy(r.large.b[:min(n, cap(r.large.b))], r.chunk[r.r:r.w])
	r.r += r.have
	r.midway, r.wasLarge = true, true
}

// finishLarge reads the rest of it.
func (r *reader) finishLarge() (message []byte, own bool, err error) {
	for r.have < r.want {
		if r.have == cap(r.large.b) {
			r.large = growBody(r.large, r.want, r.max)
		}
		r.into = r.large.b[r.have:min(cap(r.large.b), r.want)]
		n, err := r.read()
		r.into = nil
		r.have += n
		if err != nil {
			return nil, false, r.cut(err)
		}
	}
	n := r.want
	r.want = 0
	r.count(n)
	return r.large.b[:n:n], true, nil
}

// fill brings more bytes into the chunk.
func (r *reader) fill() error {
	r.account()
	switch {
	case r.r == r.w:
		r.r, r.w = 0, 0
	case r.r > chunkSize/2:
		r.w = copy(r.chunk[:], r.chunk[r.r:r.w])
		r.r = 0
	}
	n, err := r.read()
	r.w += n
	return err
}

// cut is the error of a stream that ends in the middle of a message.
func (r *reader) cut(err error) error {
	r.account()
	if r.midway && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read makes one system call that brings bytes, and waits for them. While a message
// is on its way, each stallStep of it, or the rest, must come within the stall timeout.
func (r *reader) read() (int, error) {
	if r.late { // it may have passed while we did something else
		r.setDeadline(time.Time{})
	}
	if r.raw == nil {
		r.readPlain()
	} else if err := r.raw.Read(r.tryRead); err != nil {
		r.n, r.err = 0, err
	}
	n, err := r.n, r.err
	r.burst = 0
	if n > 0 {
		if r.since += n; r.since >= stallStep || !r.midway {
			r.since, r.due = 0, time.Time{}
		}
		if r.keepsTime {
			r.lastRead.Store(int64(time.Since(r.begun)))
		}
	}
	switch {
	case err == nil && n == 0:
		return 0, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded) && r.kicked.Load():
		return n, errInterrupted
	}
	return n, err
}

// room is where the next bytes go.
func (r *reader) room() []byte {
	if r.into != nil {
		return r.into
	}
	if r.chunk == nil {
		r.chunk = getChunk()
	}
	end := chunkSize
	if r.wasLarge { // so may be the next: little more than its length, lest it be copied
		end = min(end, r.w+1<<10)
	}
	return r.chunk[r.w:end]
}

// readRaw is the part of read that has the socket. False asks to be called again when
// there is something.
func (r *reader) readRaw(fd uintptr) bool {
	r.n, r.err = readInto(int(fd), r.room())
	if !wouldBlock(r.err) {
		return true
	}
	if r.poll.limit > 0 && r.poll.try(r, fd) {
		return true
	}
	r.settle()
	if r.midway {
		r.setDeadline(r.stallDeadline())
	}
	return false
}

// readPlain is read by way of conn.
func (r *reader) readPlain() {
	r.settle()
	if r.midway {
		r.setDeadline(r.stallDeadline())
	}
	if r.chunk == nil && r.into == nil {
		r.n, r.err = r.conn.Read(r.first[:])
		if r.n > 0 {
			copy(r.room(), r.first[:r.n])
		}
		return
	}
	r.n, r.err = r.conn.Read(r.room())
}

// settle gives memory back before a wait.
func (r *reader) settle() {
	if r.chunk != nil && r.r == r.w {
		putChunk(r.chunk)
		r.chunk, r.r, r.w = nil, 0, 0
	}
	if r.scratch != nil {
		putChunk(r.scratch)
		r.scratch = nil
	}
	if r.large != nil && r.want == 0 {
		putBody(r.large)
		r.large = nil
	}
}

func (r *reader) stallDeadline() time.Time {
	if r.due.IsZero() {
		r.due = time.Now().Add(r.stall)
	}
	return r.due
}

func (r *reader) setDeadline(t time.Time) {
	r.late = !t.IsZero()
	r.deadline.Lock()
	defer r.deadline.Unlock()
	if !r.kicked.Load() {
		_ = r.conn.SetReadDeadline(t)
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// interrupt ends a wait for bytes, now and later.
func (r *reader) interrupt() {
	r.deadline.Lock()
	defer r.deadline.Unlock()
	r.kicked.Store(true)
	_ = r.conn.SetReadDeadline(longAgo)
}

// resume lets next wait again after an interrupt.
func (r *reader) resume() {
	r.late = false
	r.deadline.Lock()
	defer r.deadline.Unlock()
	r.kicked.Store(false)
	_ = r.conn.SetReadDeadline(time.Time{})
}

func (r *reader) last() time.Time { return r.begun.Add(time.Duration(r.lastRead.Load())) }

// close gives the memory back. Nobody may use what next returned any more.
func (r *reader) close() {
	r.account()
	r.want, r.r, r.w = 0, 0, 0
	r.settle()
}
