package unicast

import (
	"context"
	"sync"
)

// queue is a FIFO of messages that is bounded in messages and in bytes. A
// message larger than the whole bound is accepted when the queue is empty, so
// that it is not refused for ever.
type queue struct {
	maxMessages int
	maxBytes    int
	overhead    int // bytes counted for each message beside its body

	mu       sync.Mutex
	messages []Message
	bytes    int
	closed   bool
	space    signal // something was taken, or the queue was closed
	data     signal // something was added, or the queue was closed
}

// tryPut adds m if there is room. ErrBusy when there is none, ErrClosed after close.
func (q *queue) tryPut(m Message) error {
	_, err := q.add(m)
	return err
}

// put adds m, and waits for room within ctx.
func (q *queue) put(ctx context.Context, m Message) error {
	for {
		room, err := q.add(m)
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// add is one attempt: with ErrBusy comes a channel that is closed when trying
// again makes sense.
func (q *queue) add(m Message) (room <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	size := q.size(m)
	if n := len(q.messages); n > 0 && (n >= q.maxMessages || q.bytes+size > q.maxBytes) {
		return q.space.wait(), ErrBusy
	}
	q.messages = append(q.messages, m)
	q.bytes += size
	q.data.fire()
	return nil, nil
}

// get takes the oldest message, and waits for one within ctx. After close it
// returns what is left, then ErrClosed.
func (q *queue) get(ctx context.Context) (Message, error) {
	for {
		q.mu.Lock()
		if len(q.messages) > 0 {
			m := q.messages[0]
			q.messages[0] = Message{}
			q.messages = q.messages[1:]
			if len(q.messages) == 0 {
				q.messages = nil
			}
			q.bytes -= q.size(m)
			q.space.fire()
			q.mu.Unlock()
			return m, nil
		}
		if q.closed {
			q.mu.Unlock()
			return Message{}, ErrClosed
		}
		data := q.data.wait()
		q.mu.Unlock()
		select {
		case <-data:
		case <-ctx.Done():
			return Message{}, ended(ctx)
		}
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.space.fire()
	q.data.fire()
}

func (q *queue) queued() (messages, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages), q.bytes
}

func (q *queue) size(m Message) int { return len(m.Body) + q.overhead }

// signal wakes everyone who waits. Its owner's lock guards it.
type signal struct{ ch chan struct{} }

func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
