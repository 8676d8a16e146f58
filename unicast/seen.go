package unicast

import (
	"sync"

	"github.com/parley-mesh/parley/codec"
)

// Bounds of what a receiver remembers: for each of the senders heard of last,
// at least 512 and at most 1024 of them, at least the last 512 and at most 1024
// message ids. Full, that is some 20 MiB.
const (
	seenSenders  = 512
	seenMessages = 512
)

// seen knows the ids of recent messages, so that none reaches the handler twice.
type seen struct {
	mu      sync.Mutex
	senders recent[*recent[struct{}]] // by sender's instance, then by sequence number
}

// first reports whether id was not seen recently, and remembers it.
func (s *seen) first(id codec.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, known := s.senders.get(id.Instance(), seenSenders)
	if !known {
		messages = new(recent[struct{}])
		s.senders.put(id.Instance(), messages, seenSenders)
	}
	if _, known = messages.get(id.Seq(), seenMessages); known {
		return false
	}
	messages.put(id.Seq(), struct{}{}, seenMessages)
	return true
}

// recent is a map of the keys used last: at least size of them and fewer than
// twice as many. It has two generations. What is used goes to the young one;
// when that is full it becomes the old one, and what was old is forgotten.
type recent[V any] struct{ young, old map[uint64]V }

func (r *recent[V]) get(key uint64, size int) (V, bool) {
	if v, ok := r.young[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	if ok {
		r.put(key, v, size)
	}
	return v, ok
}

func (r *recent[V]) put(key uint64, v V, size int) {
	if len(r.young) >= size {
		r.young, r.old = nil, r.young
	}
	if r.young == nil {
		r.young = make(map[uint64]V)
	}
	r.young[key] = v
}
