package unicast

import (
	"sync"
	"sync/atomic"

	"github.com/parley-mesh/parley/codec"
)

// Bounds of what a receiver remembers: of each of the senders heard of last, at
// least 512 and at most 1024 of them, the ids of the last 16,384 messages that
// it sent; and of messages that came later than that at least the last 512 of
// all senders. Full, that is some 2 MiB.
const (
	seenSenders = 512
	seenWindow  = 1 << 14
	seenLate    = 512
)

// seen knows the ids of recent messages, so that none reaches the handler twice.
type seen struct {
	latest [16]atomic.Pointer[window] // of senders, by instance: a short way to windows that are in senders

	mu      sync.Mutex
	senders recent[uint64, *window] // by sender's instance
	late    recent[codec.ID, struct{}]
}

// first reports whether id was not seen recently, and remembers it.
func (s *seen) first(id codec.ID) bool {
	instance := id.Instance()
	slot := &s.latest[instance%uint64(len(s.latest))]
	w := slot.Load()
	if w == nil || w.instance != instance {
		w = s.window(instance, slot)
	}
	first, late := w.first(id.Seq())
	if !late {
		return first
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.late.get(id, seenLate)
	if !known {
		s.late.put(id, struct{}{}, seenLate)
	}
	return !known
}

// window returns that of a sender and leaves it in slot.
func (s *seen) window(instance uint64, slot *atomic.Pointer[window]) *window {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, known := s.senders.get(instance, seenSenders)
	if !known {
		w = &window{instance: instance}
		s.senders.put(instance, w, seenSenders)
	}
	if len(s.senders.young) == 1 {
		// A generation has just begun. Whoever is heard of in it must be seen to be.
		for i := range s.latest {
			s.latest[i].Store(nil)
		}
	}
	slot.Store(w)
	return w
}

// window knows which of the last numbers of a sender were seen: a bitmap that
// slides, as in RFC 6479.
type window struct {
	instance uint64

	mu   sync.Mutex
	top  uint64              // the highest number seen
	bits [windowWords]uint64 // of number n: bit n%64 of word n/64%windowWords
}

// One word more than the window has: the one that top is in may be half full.
const windowWords = seenWindow/64 + 1

// first reports whether seq was not seen, and remembers it; or that seq is late:
// too far behind the highest for the window to tell.
func (w *window) first(seq uint64) (first, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	word, bit := seq/64, uint64(1)<<(seq%64)
	switch top := w.top / 64; {
	case word > top:
		for n := top + 1; n <= word && n <= top+windowWords; n++ {
			w.bits[n%windowWords] = 0
		}
	case top-word >= windowWords:
		return false, true
	}
	w.top = max(w.top, seq)
	p := &w.bits[word%windowWords]
	first = *p&bit == 0
	*p |= bit
	return first, false
}

// recent is a map of the keys used last: at least size of them and fewer than
// twice as many. It has two generations. What is used goes to the young one;
// when that is full it becomes the old one, and what was old is forgotten.
type recent[K comparable, V any] struct{ young, old map[K]V }

func (r *recent[K, V]) get(key K, size int) (V, bool) {
	if v, ok := r.young[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	if ok {
		r.put(key, v, size)
	}
	return v, ok
}

func (r *recent[K, V]) put(key K, v V, size int) {
	if len(r.young) >= size {
		r.young, r.old = nil, r.young
	}
	if r.young == nil {
		r.young = make(map[K]V)
	}
	r.young[key] = v
}
