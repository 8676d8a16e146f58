package sp

import (
	"encoding/binary"
	"slices"
)

// segment is a piece of memory to write.
type segment struct {
	buf    []byte
	chunk  *chunk // goes back when the segment is done
	frames int    // messages that end in it
	more   bool   // it continues the message that the one before it begins
	lent   bool   // the memory is a caller's, who waits
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
