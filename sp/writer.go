package sp

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
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

// segment is a piece of memory to write.
type segment struct {
	buf    []byte
	chunk  *chunk // goes back when the segment is done
	frames int    // messages that end in it
	more   bool   // it continues the message that the one before it begins
	lent   bool   // the memory is a caller's, who waits
}

// target is somebody who waits for the stream to be written up to a place.
type target struct {
	at   uint64
	done chan struct{}
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

// add puts a message into segments, and reports whether they borrow memory of the
// caller. The caller holds mu.
func (w *writer) add(size int, head []byte, parts [][]byte) (lent bool) {
	w.frames++
	w.accepted += uint64(size)
	if size <= inPlace {
		b := w.space(size)
		b = binary.BigEndian.AppendUint64(b, uint64(size-lengthSize))
		b = append(b, head...)
		for _, p := range parts {
			b = append(b, p...)
		}
		w.extend(b, 1)
		return false
	}
	small := lengthSize + len(head)
	b := binary.BigEndian.AppendUint64(w.space(small), uint64(size-lengthSize))
	w.extend(append(b, head...), 0)
	first := len(w.segments) - 1
	for _, p := range parts {
		switch {
		case len(p) == 0:
		case len(p) <= inPlace:
			w.extend(append(w.space(len(p)), p...), 0)
		case w.raw == nil:
			w.segments = append(w.segments, segment{buf: slices.Clone(p)})
		default:
			w.segments = append(w.segments, segment{buf: p, lent: true})
			lent = true
		}
	}
	for i := first + 1; i < len(w.segments); i++ {
		w.segments[i].more = true
	}
	w.segments[len(w.segments)-1].frames++
	return lent
}

// space is room for n bytes at the end of the tail chunk.
func (w *writer) space(n int) []byte {
	if w.tail != nil && w.tailUsed+n > chunkSize {
		w.dropTail()
	}
	if w.tail == nil {
		w.tail, w.tailUsed, w.tailLast = getChunk(), 0, -1
	}
	return w.tail[w.tailUsed : w.tailUsed : w.tailUsed+n]
}

// extend takes b, which space gave, into the queue, with the messages that end in it.
func (w *writer) extend(b []byte, frames int) {
	n := len(w.segments)
	last := w.popped + int64(n) - 1
	if n > 0 && w.tailLast == last && !w.segments[n-1].more { // see advance
		s := &w.segments[n-1]
		s.buf = s.buf[:len(s.buf)+len(b)]
		s.frames += frames
	} else {
		start := w.tailUsed
		w.segments = append(w.segments, segment{buf: w.tail[start : start+len(b)], frames: frames})
		w.tailLast = last + 1
	}
	w.tailUsed += len(b)
}

// dropTail gives the tail chunk to the segment that uses it last.
func (w *writer) dropTail() {
	if i := w.tailLast - w.popped; i >= 0 && w.tailLast >= 0 {
		w.segments[i].chunk = w.tail
	} else {
		putChunk(w.tail)
	}
	w.tail = nil
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

// advance notes that n bytes more are written, forgets the messages that are, and
// wakes who waited for it. The caller holds mu.
func (w *writer) advance(n int) {
	w.written += uint64(n)
	w.partial += n
	done, frames, bytes := 0, 0, 0
	for i, rest := 0, w.partial; i < len(w.segments) && rest >= len(w.segments[i].buf); i++ {
		rest -= len(w.segments[i].buf)
		if i+1 < len(w.segments) && w.segments[i+1].more {
			continue // a message goes as a whole
		}
		done, w.partial = i+1, rest
	}
	for i := range w.segments[:done] {
		s := &w.segments[i]
		frames += s.frames
		bytes += len(s.buf)
		if s.chunk != nil {
			putChunk(s.chunk)
		}
		*s = segment{}
	}
	if done == len(w.segments) {
		w.segments = w.segments[:0]
		w.tailLast = -1
	} else if done > 0 {
		w.segments = append(w.segments[:0], w.segments[done:]...)
		clear(w.segments[len(w.segments):min(cap(w.segments), len(w.segments)+done)])
	}
	w.popped += int64(done)
	if done > 0 {
		w.frames -= frames
		w.stats.messagesOut.Add(uint64(frames))
		w.stats.bytesOut.Add(uint64(bytes - frames*lengthSize))
	}
	w.wake()
}

func (w *writer) wake() {
	for len(w.waits) > 0 && (w.waits[0].at <= w.written || w.err != nil) {
		close(w.waits[0].done)
		w.waits = slices.Delete(w.waits, 0, 1)
	}
	for len(w.claims) > 0 && (w.err != nil || w.fits(w.claims[0].n)) {
		c := w.claims[0]
		w.claims = slices.Delete(w.claims, 0, 1)
		w.reserved += c.n
		close(c.granted)
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

// waitForRoom waits until size bytes fit. The caller holds mu, before and after.
func (w *writer) waitForRoom(ctx context.Context, deadline time.Time, size int) error {
	c := &claim{n: size, granted: make(chan struct{})}
	w.claims = append(w.claims, c)
	if !w.busy && w.err == nil && len(w.segments) > 0 {
		w.begin(behind) // what was left for later takes the room
	}
	w.wake()
	w.mu.Unlock()
	timeout, stop := timer(deadline)
	defer stop()
	var err error
	select {
	case <-c.granted:
	case <-ctx.Done():
		err = contextError(ctx)
	case <-timeout:
		err = context.DeadlineExceeded
	}
	w.mu.Lock()
	if i := slices.Index(w.claims, c); i >= 0 {
		w.claims = slices.Delete(w.claims, i, i+1)
		w.wake() // it may have stood before smaller ones
		return err
	}
	w.reserved -= size // granted, be it at the same moment
	return nil
}

// lendTime is how long a sender waits for its memory before it is copied. As long as
// the peer reads it is back much sooner.
const lendTime = 5 * time.Millisecond

// waitLent waits until the stream is written up to at, or else copies the memory that
// was lent, so that the caller has it back. The caller holds mu.
func (w *writer) waitLent(at uint64) {
	if w.written >= at {
		return
	}
	if w.err == nil {
		t := w.waitFor(at)
		w.mu.Unlock()
		enough := time.NewTimer(lendTime)
		select {
		case <-t.done:
		case <-enough.C:
		}
		enough.Stop()
		w.mu.Lock()
		w.unwait(t)
	}
	w.awaitCall()
	if w.written >= at {
		return
	}
	// Those of others are copied with it: it is rare, and simple.
	for i := range w.segments {
		if s := &w.segments[i]; s.lent {
			s.buf, s.lent = slices.Clone(s.buf), false
		}
	}
}

// awaitCall waits until no system call uses memory of segments. None waits for the
// socket. The caller holds mu.
func (w *writer) awaitCall() {
	for w.inCall {
		w.returned.Wait()
	}
}

// timer is a channel for a deadline that is not zero. For waits that are rare.
func timer(deadline time.Time) (_ <-chan time.Time, stop func() bool) {
	if deadline.IsZero() {
		return nil, func() bool { return false }
	}
	t := time.NewTimer(time.Until(deadline))
	return t.C, t.Stop
}

func (w *writer) waitFor(at uint64) *target {
	t := &target{at: at, done: make(chan struct{})}
	if w.written >= at || w.err != nil {
		close(t.done)
		return t
	}
	i, _ := slices.BinarySearchFunc(w.waits, at, func(t *target, at uint64) int {
		if t.at <= at {
			return -1
		}
		return 1
	})
	w.waits = slices.Insert(w.waits, i, t)
	return t
}

func (w *writer) unwait(t *target) {
	if i := slices.Index(w.waits, t); i >= 0 {
		w.waits = slices.Delete(w.waits, i, i+1)
	}
}

// errShut is the error of send after shut.
var errShut = errors.New("shut")

// shut has nothing more accepted. What is queued will still be written.
func (w *writer) shut() {
	w.mu.Lock()
	w.isShut = true
	w.mu.Unlock()
}

// pending is what was accepted and is not wholly written: messages, and bytes of their
// bodies.
func (w *writer) pending() (messages, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.walk(func(size int) []byte {
		messages, bytes = messages+1, bytes+size
		return nil
	})
	return messages, bytes
}

// drain waits until everything accepted so far is written. Otherwise the error is
// ctx's, or what ended the writer.
func (w *writer) drain(ctx context.Context) error {
	w.mu.Lock()
	at := w.accepted
	t := w.waitFor(at)
	if !w.busy && w.err == nil && len(w.segments) > 0 {
		w.begin(behind)
	}
	w.mu.Unlock()
	select {
	case <-t.done:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwait(t)
	switch {
	case w.written >= at:
		return nil
	case w.err != nil:
		return w.err
	}
	return contextError(ctx)
}

// isWritten reports whether the stream is written up to at. The writer must have
// ended, and wait have returned.
func (w *writer) isWritten(at uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awaitCall()
	return w.written >= at
}

// unsent returns the messages that were not wholly written, in order, and forgets
// them. The writer must have ended, and wait have returned.
func (w *writer) unsent() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awaitCall()
	var left [][]byte
	w.walk(func(size int) []byte {
		b := make([]byte, size)
		left = append(left, b)
		return b
	})
	w.segments, w.partial, w.frames, w.tail = nil, 0, 0, nil
	return left
}

// walk tells the size of each message that is not wholly written, in order, and
// copies it to where that returns. The caller holds mu.
func (w *writer) walk(each func(size int) []byte) {
	at, i, skip := 0, 0, 0
	move := func(to []byte, n int) {
		for n > 0 {
			b := w.segments[i].buf[skip:]
			if len(b) == 0 {
				i, skip = i+1, 0
				continue
			}
			k := min(n, len(b))
			to = to[copy(to, b[:k]):]
			n, skip = n-k, skip+k
		}
	}
	for range w.frames {
		var length [lengthSize]byte
		move(length[:], lengthSize)
		size := int(binary.BigEndian.Uint64(length[:]))
		var body []byte
		if at += lengthSize + size; at > w.partial {
			body = each(size)
		}
		move(body, size)
	}
}
