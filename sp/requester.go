package sp

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// Requester sends requests to one peer over one connection (SP REQ, without the
// protocol's own resending: a request is written at most once). Its methods may be
// called concurrently.
//
// It does not reconnect: when the connection is lost, Done is closed and every call
// fails; the owner closes it and dials a new one.
type Requester struct {
	c      *client
	slots  chan struct{}        // Config.InFlight of them
	writes chan *mangos.Message // unbuffered: what was taken from it is being written

	mu     sync.Mutex
	lastID uint32
	calls  map[uint32]chan []byte // outstanding, by id
}

// DialRequester connects and shakes hands within ctx, and within 10 s and
// Config.HandshakeTimeout. Errors: *URLError, a bad Config, ErrHandshake, ctx's
// cause, or what the system says of the address.
func DialRequester(ctx context.Context, url string, cfg Config) (*Requester, error) {
	c, err := dial(ctx, url, infoReq, wordSize, cfg)
	if err != nil {
		return nil, err
	}
	r := &Requester{
		c: c, slots: make(chan struct{}, c.cfg.InFlight),
		writes: make(chan *mangos.Message),
		lastID: rand.Uint32(), calls: make(map[uint32]chan []byte),
	}
	c.wg.Go(r.read)
	c.wg.Go(r.write)
	return r, nil
}

// Request sends body and waits for the reply, which belongs to the caller. At most
// Config.InFlight requests are outstanding; further callers wait their turn within
// ctx.
//
// body must not be changed from the call on: it is not copied, and when ctx ends
// while it is being written, it is still used after the return. Several calls may
// share it, and after ErrNotSent it is the caller's again. Errors match (errors.Is):
//
//   - ErrNotSent: the request was never handed to the connection and the peer will
//     not see it; with the cause: ErrTooLarge when body is over MaxMessage, ctx's,
//     ErrClosed, or what ended the connection.
//   - ErrConnectionLost: the connection ended after the request was handed to it;
//     with ErrClosed when it was Close that ended it.
//   - ctx's cause: ctx ended after the request was handed over. The peer may still
//     handle it; its reply is dropped.
func (r *Requester) Request(ctx context.Context, body []byte) ([]byte, error) {
	reply, err := r.request(ctx, body)
	if err != nil {
		return nil, &callError{"request to", r.c.url, err}
	}
	return reply, nil
}

func (r *Requester) request(ctx context.Context, body []byte) ([]byte, error) {
	if err := r.c.checkSize(body); err != nil {
		return nil, err
	}
	if r.c.ended() || ctx.Err() != nil {
		return nil, r.c.unsent(ctx)
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, r.c.unsent(ctx)
	case <-r.c.done:
		return nil, r.c.unsent(ctx)
	}
	id, answered := r.open()
	defer r.forget(id)
	if !r.hand(ctx, id, body) {
		return nil, r.c.unsent(ctx)
	}
	select {
	case reply := <-answered:
		return reply, nil
	case <-ctx.Done():
	case <-r.c.done:
	}
	select {
	case reply := <-answered: // at the same moment
		return reply, nil
	default:
	}
	if r.c.ended() {
		return nil, fmt.Errorf("%w: %w", ErrConnectionLost, r.c.tp.endedBy())
	}
	return nil, contextError(ctx)
}

// open registers a call under an id that no other outstanding call has.
func (r *Requester) open() (id uint32, answered <-chan []byte) {
	ch := make(chan []byte, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		r.lastID++
		id = r.lastID | finalWord<<24
		if _, taken := r.calls[id]; !taken {
			r.calls[id] = ch
			return id, ch
		}
	}
}

func (r *Requester) forget(id uint32) {
	r.mu.Lock()
	delete(r.calls, id)
	r.mu.Unlock()
}

// hand gives the request to the writer; true from the moment the writer has it.
func (r *Requester) hand(ctx context.Context, id uint32, body []byte) bool {
	select {
	case r.writes <- outgoing(binary.BigEndian.AppendUint32(nil, id), body):
		return true
	case <-ctx.Done():
	case <-r.c.done:
	}
	return false
}

// write is the goroutine that writes requests. It ends with the connection.
func (r *Requester) write() {
	for {
		select {
		case m := <-r.writes:
			_ = r.c.pp.SendMsg(m) // an error ends the connection
		case <-r.c.done:
			return
		}
	}
}

// read is the goroutine that reads replies. It ends with the connection, whose end
// it notices even when nothing is outstanding.
func (r *Requester) read() {
	for {
		frame, ok := receive(r.c.pp)
		if !ok {
			return
		}
		if len(frame) < wordSize || frame[0]&finalWord == 0 {
			_ = r.c.tp.fail(fmt.Errorf("%w: a reply without an id", ErrMalformed))
			_ = r.c.pp.Close()
			return
		}
		r.answer(binary.BigEndian.Uint32(frame), frame[wordSize:])
	}
}

// answer gives a reply to its call; each id is answered once. A reply to a call
// that was given up is counted and dropped.
func (r *Requester) answer(id uint32, reply []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch, ok := r.calls[id]
	if !ok {
		r.c.stats.lateReplies.Add(1)
		return
	}
	delete(r.calls, id)
	ch <- reply
}

// Done is closed when the connection is lost, also when nothing is outstanding, or
// closed.
func (r *Requester) Done() <-chan struct{} { return r.c.done }

// InFlight is the number of requests outstanding.
func (r *Requester) InFlight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}

// LastRead is when something was last read from the connection, be it part of a
// reply, or else when the connection was made. A call that ended by its context
// while nothing was read since it began suggests that the peer has vanished, which
// the system may take minutes to notice.
func (r *Requester) LastRead() time.Time { return r.c.tp.heard.last() }

// Close ends the connection and every call. It returns nil and may be called again.
func (r *Requester) Close() error {
	r.c.close()
	return nil
}

// Stats returns the counters.
func (r *Requester) Stats() Stats {
	st := r.c.snapshotStats()
	st.Handling = r.InFlight()
	return st
}
