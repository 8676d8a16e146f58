package broadcast

import (
	"context"
	"errors"
	"slices"
	"sync"
)

const (
	maxQueued      = 1024    // messages
	maxQueuedBytes = 8 << 20 // bytes of bodies and topics; more when one message may be larger
	maxWaiting     = 256     // reliable messages that wait for room
)

var (
	errFull        = errors.New("queue full")
	errQueueClosed = errors.New("queue closed")
)

// job is one message on its way to the handler.
type job struct {
	msg Message
	ctx context.Context // the sender's patience; nil: it does not wait
	out *outcome        // where it learns what became of it; nil for gossip
}

func (j *job) size() int { return len(j.msg.Topic) + len(j.msg.Body) }

// queue leads from the network to the one worker, in order of arrival. It is
// bounded in messages and bytes: offer fails when it is full, put waits for room
// behind at most maxWaiting others.
type queue struct {
	maxItems, maxBytes, maxWaiting int

	mu      sync.Mutex
	some    sync.Cond // there is an item, or it is closed
	items   []*job
	bytes   int
	waiting []*waiter // in order of arrival
	closed  bool
}

type waiter struct {
	job      *job
	admitted bool
	ready    chan struct{} // closed when it was admitted or the queue was closed
}

func newQueue(items, bytes, waiting int) *queue {
	q := &queue{maxItems: items, maxBytes: bytes, maxWaiting: waiting}
	q.some.L = &q.mu
	return q
}

// fits: a message that is larger than the whole queue gets in when it is alone.
func (q *queue) fits(j *job) bool {
	return len(q.items) == 0 || len(q.items) < q.maxItems && q.bytes+j.size() <= q.maxBytes
}

func (q *queue) push(j *job) {
	q.items = append(q.items, j)
	q.bytes += j.size()
	q.some.Signal()
}

// offer queues j if there is room now.
func (q *queue) offer(j *job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errQueueClosed
	case len(q.waiting) > 0 || !q.fits(j):
		return errFull
	}
	q.push(j)
	return nil
}

// put queues j, and waits for room until ctx ends.
func (q *queue) put(ctx context.Context, j *job) error {
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return errQueueClosed
	case len(q.waiting) == 0 && q.fits(j):
		q.push(j)
		q.mu.Unlock()
		return nil
	case len(q.waiting) >= q.maxWaiting:
		q.mu.Unlock()
		return errFull
	}
	w := &waiter{job: j, ready: make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()

	select {
	case <-w.ready:
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case w.admitted: // maybe at the last moment; the worker sees that ctx is over
		return nil
	case q.closed:
		return errQueueClosed
	}
	i := slices.Index(q.waiting, w)
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.admit() // those behind it may be smaller
	return errFull
}

// admit lets in those who wait and fit now, first come, first served.
func (q *queue) admit() {
	for len(q.waiting) > 0 && q.fits(q.waiting[0].job) {
		w := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.push(w.job)
		w.admitted = true
		close(w.ready)
	}
}

// take waits for the next item; false when the queue is closed.
func (q *queue) take() (*job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.some.Wait()
	}
	if q.closed {
		return nil, false
	}
	j := q.items[0]
	q.items[0] = nil
	q.items = q.items[1:]
	q.bytes -= j.size()
	q.admit()
	return j, true
}

// close ends the waiting of all and returns what was queued.
func (q *queue) close() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	left := q.items
	q.items, q.bytes = nil, 0
	for _, w := range q.waiting {
		close(w.ready)
	}
	q.waiting = nil
	q.some.Broadcast()
	return left
}

func (q *queue) load() (items, bytes, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items), q.bytes, len(q.waiting)
}
