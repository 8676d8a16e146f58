package sp

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How a message is to leave, when nobody writes at the moment.
type urgency int

const (
	// atOnce: the caller writes it. For the one message that somebody waits for.
	atOnce urgency = iota
	// together: the caller lets other goroutines run first, which may add theirs, and
	// writes it all. For the first of several requests.
	together
	// behind: a goroutine writes it, while the caller adds more; but at once after a
	// pause. For a stream.
	behind
	// later: the caller will flush.
	later
)

// pause is how long a stream must have rested for its next message to count as a
// lone one.
const pause = 100 * time.Microsecond

// maxVector is how many pieces of memory one system call writes.
const maxVector = 16

// writer sends the messages of one connection in the order in which they were handed
// over, each once, and keeps those that were not wholly written when the connection
// ends. What is handed over while a system call is under way leaves in the next one.
//
// Somebody writes (busy) whenever something is queued, but for what a caller left for
// later or for who collects: either the goroutine of the caller that found the writer
// idle, which never waits for the socket, or one of the writer's own, which lives as
// long as there is something to write.
//
// Places in the stream of bytes are counted from the connection's beginning, so that
// a message is written when the stream is written up to its end.
type writer struct {
	conn    net.Conn
	raw     syscall.RawConn // nil: only conn.Write, which waits, from our own goroutine
	limit   int             // of queued bytes
	stall   time.Duration   // how long the peer may take none of them; 0: for ever
	ended   func(error)     // told of the first error of the socket
	stats   *counters
	sink    func(uintptr) bool // write what the socket takes now
	drainer func(uintptr) bool // write all
	goFlush func()

	// While it is set, somebody collects what is to leave together, and will flush.
	collecting atomic.Bool

	mu       sync.Mutex
	segments []segment // not wholly written, as far as messages go
	partial  int       // bytes of them that are
	accepted uint64    // end of the stream
	written  uint64    // what the system has taken of it
	frames   int       // in segments, finished ones included
	busy     bool
	inCall   bool // a system call uses memory of segments
	returned sync.Cond
	tail     *chunk // being filled
	tailUsed int
	tailLast int64 // segment that uses the tail last, counted as popped is; -1: none
	popped   int64 // segments, ever
	callErr  error // of a system call
	err      error
	isShut   bool      // nothing more is accepted
	claims   []*claim  // for room
	reserved int       // bytes of room granted and not yet used
	waits    []*target // for written, in order
	rested   time.Time // when the queue of a writer that streams was last empty
	streams  bool      // something was sent behind
	stallAt  uint64    // when so much was written, the next step was given its time
	stallDue time.Time // until then
	stalling bool      // a deadline is set
	wholeAt  uint64    // all up to here must be written
	wholeDue time.Time // until then
	vector   [maxVector][]byte
	wg       sync.WaitGroup
}

func newWriter(conn net.Conn, raw syscall.RawConn, limit int, stall time.Duration, stats *counters, ended func(error)) *writer {
	w := &writer{conn: conn, raw: raw, limit: limit, stall: stall, stats: stats, ended: ended}
	w.returned.L = &w.mu
	w.sink = func(fd uintptr) bool { w.write(fd); return true }
	w.drainer = w.writeAll
	w.goFlush = w.flusher
	return w
}

// send hands over one message: the parts, one after the other, which are the caller's
// again when it returns. It waits for room until ctx ends, or deadline when that is not
// zero; nil means that the message is in the stream and at is where it ends.
func (w *writer) send(ctx context.Context, deadline time.Time, u urgency, head []byte, parts ...[]byte) (at uint64, err error) {
	size := lengthSize + len(head)
	for _, p := range parts {
		size += len(p)
	}
	w.mu.Lock()
	if len(w.claims) > 0 || !w.fits(size) {
		if err := w.waitForRoom(ctx, deadline, size); err != nil {
			w.mu.Unlock()
			return 0, err
		}
	}
	if w.err != nil || w.isShut {
		err := w.err
		if err == nil {
			err = errShut
		}
		w.wake() // room that was granted to it
		w.mu.Unlock()
		return 0, err
	}
	lent := w.add(size, head, parts)
	at = w.accepted
	if lent {
		u = atOnce // we wait for it
	}
	if !w.busy && (u != together || !w.collecting.Load()) {
		w.begin(u)
	}
	if lent {
		w.waitLent(at)
	}
	w.mu.Unlock()
	return at, nil
}

func (w *writer) queued() int { return int(w.accepted - w.written) }

func (w *writer) fits(size int) bool {
	q := w.queued() + w.reserved
	return q == 0 || q+size <= w.limit
}

// begin has what is queued written, now that nobody does. The caller holds mu.
func (w *writer) begin(u urgency) {
	if u == later {
		return
	}
	w.busy = true
	if w.raw == nil {
		w.spawn()
		return
	}
	switch u {
	case behind:
		w.streams = true
		if time.Since(w.rested) < pause {
			w.spawn()
			return
		}
	case together:
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	w.writeSome()
}

// writeSome writes what the socket takes now, and leaves the rest to our goroutine.
// The caller holds mu and has set busy.
func (w *writer) writeSome() {
	w.mu.Unlock()
	err := w.raw.Write(w.sink)
	w.mu.Lock()
	w.failed(err)
	if w.err == nil && len(w.segments) > 0 {
		w.spawn()
		return
	}
	w.rest()
}

// flush has written what was left for later.
func (w *writer) flush() {
	w.mu.Lock()
	if !w.busy && len(w.segments) > 0 && w.err == nil {
		w.begin(atOnce)
	}
	w.mu.Unlock()
}

// spawn has our own goroutine write. It ends with the queue, or the connection.
func (w *writer) spawn() {
	w.wg.Add(1)
	go w.goFlush()
}

func (w *writer) flusher() {
	defer w.wg.Done()
	runtime.Gosched() // others may have more to add
	var err error
	if w.raw != nil {
		err = w.raw.Write(w.drainer)
	} else {
		err = w.writePlain()
	}
	w.mu.Lock()
	w.failed(err)
	if w.err != nil {
		w.rest()
	}
	w.mu.Unlock()
}

// writeAll is the part of flusher that has the socket. False asks to be called again
// when the socket takes more.
func (w *writer) writeAll(fd uintptr) bool {
	for {
		full := w.write(fd)
		w.mu.Lock()
		switch {
		case w.err != nil || w.callErr != nil:
			w.mu.Unlock()
			return true
		case len(w.segments) == 0:
			w.rest()
			w.mu.Unlock()
			return true
		case full:
			w.watchStall()
			w.mu.Unlock()
			return false
		}
		w.mu.Unlock()
	}
}

// write makes one system call. It reports whether the socket is full.
func (w *writer) write(fd uintptr) (full bool) {
	w.mu.Lock()
	if w.err != nil || w.callErr != nil || len(w.segments) == 0 {
		w.mu.Unlock()
		return false
	}
	v := w.vector[:0]
	skip := w.partial
	total := 0
	for i := range w.segments {
		if len(v) == maxVector {
			break
		}
		b := w.segments[i].buf
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		v = append(v, b[skip:])
		total += len(b) - skip
		skip = 0
	}
	w.inCall = true
	w.mu.Unlock()
	n, err := writeVector(int(fd), v)
	w.mu.Lock()
	w.inCall = false
	w.returned.Broadcast()
	clear(v)
	full = err == nil && n < total || wouldBlock(err)
	if n > 0 {
		w.advance(n)
	}
	if err != nil && !full {
		w.callErr = os.NewSyscallError("write", err)
	}
	w.mu.Unlock()
	return full
}

// writePlain writes all by way of conn.
func (w *writer) writePlain() error {
	for {
		w.mu.Lock()
		if w.err != nil {
			w.mu.Unlock()
			return nil
		}
		if len(w.segments) == 0 {
			w.rest()
			w.mu.Unlock()
			return nil
		}
		skip, i := w.partial, 0
		for skip >= len(w.segments[i].buf) {
			skip -= len(w.segments[i].buf)
			i++
		}
		b := w.segments[i].buf[skip:]
		w.watchStall()
		w.mu.Unlock()
		n, err := w.conn.Write(b[:min(len(b), stallStep)])
		w.mu.Lock()
		w.advance(n)
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// rest ends the writing. The caller holds mu.
func (w *writer) rest() {
	w.busy = false
	if w.streams { // the clock costs as much as all of this
		w.rested = time.Now()
	}
	if w.stalling {
		w.stalling = false
		_ = w.conn.SetWriteDeadline(time.Time{})
	}
	if len(w.segments) == 0 && w.tail != nil {
		putChunk(w.tail)
		w.tail = nil
	}
	if len(w.segments) == 0 && cap(w.segments) > 64 {
		w.segments = nil
	}
}

// watchStall gives the peer time for the next stallStep of bytes, before we wait for
// it, and no more than all that is queued has together, wherever it began to wait.
func (w *writer) watchStall() {
	if w.stall == 0 {
		return
	}
	whole, step := !w.stalling || w.written >= w.wholeAt, !w.stalling || w.written-w.stallAt >= stallStep
	if !whole && !step {
		return
	}
	now := time.Now()
	if whole {
		w.wholeAt, w.wholeDue = w.accepted, now.Add(w.stall*time.Duration(2+w.queued()/wholeStep))
	}
	if step {
		w.stallAt, w.stallDue = w.written, now.Add(w.stall)
	}
	w.stalling = true
	due := w.stallDue
	if w.wholeDue.Before(due) {
		due = w.wholeDue
	}
	_ = w.conn.SetWriteDeadline(due)
}

// failed ends the writer with its first error, if there was one; the connection hears
// of it before anybody who waits. Nobody may be inside raw, since closing the connection
// waits for that. The caller holds mu and has set busy.
func (w *writer) failed(err error) {
	if err == nil {
		err = w.callErr
	}
	if err == nil || w.err != nil {
		return
	}
	w.callErr = err
	w.mu.Unlock()
	w.ended(err)
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.wake()
}

// close ends the writer: what is queued will not be written. Our goroutine ends when
// the connection is closed; wait waits for it.
func (w *writer) close(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
		w.wake()
	}
	w.mu.Unlock()
}

func (w *writer) wait() { w.wg.Wait() }

// errShut is the error of send after shut.
var errShut = errors.New("shut")

// shut has nothing more accepted. What is queued will still be written.
func (w *writer) shut() {
	w.mu.Lock()
	w.isShut = true
	w.mu.Unlock()
}
