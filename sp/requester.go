package sp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Requester sends requests to one peer over one connection (SP REQ, without the
// protocol's own resending: a request is written at most once). Its methods may be
// called concurrently.
//
// It does not reconnect: when the connection is lost, Done is closed and every call
// fails; the owner closes it and dials a new one.
type Requester struct {
	c *client

	mu       sync.Mutex
	ended    atomic.Bool // set under mu
	lastID   uint32
	calls    []*call // outstanding, each at its id modulo len(calls), a power of two
	inFlight int
	turns    []*turn     // of those who wait to be among them
	reading  bool        // a caller or our own goroutine reads
	watched  watched     // of the caller that reads, or did last
	expiry   *time.Timer // runs at due; nil: not yet made
	due      int64       // the earliest deadline, or earlier; in nanoseconds after began
	began    time.Time

	take  chan struct{} // our own goroutine is to read
	led   atomic.Bool   // a caller has read since the idle timer ran
	idle  *time.Timer
	alert atomic.Bool // the idle timer runs
}

// call is one outstanding request.
type call struct {
	id       uint32
	end      atomic.Uint64 // where it ends in the stream; 0: it is not in there yet
	deadline time.Time     // zero: none
	due      int64         // the same, in nanoseconds after Requester.began
	reply    []byte
	err      error
	done     chan struct{} // holds one when reply and err are set
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

// putBack keeps c for another request, and nothing of the caller's with it.
func (c *call) putBack() {
	c.reply, c.err = nil, nil
	calls.Put(c)
}

// turn is the right to one more outstanding request.
type turn struct{ granted chan struct{} }

// DialRequester connects and shakes hands within ctx, and within 10 s and
// Config.HandshakeTimeout. Errors: *URLError, a bad Config, ErrHandshake, ctx's
// cause, or what the system says of the address.
func DialRequester(ctx context.Context, url string, cfg Config) (*Requester, error) {
	c, err := dial(ctx, url, infoReq, wordSize, cfg)
	if err != nil {
		return nil, err
	}
	r := &Requester{
		c: c, lastID: rand.Uint32(), calls: make([]*call, 8), due: math.MaxInt64, began: time.Now(),
		reading: true, take: make(chan struct{}, 1),
	}
	r.idle = time.AfterFunc(time.Hour, r.lookIdle)
	r.idle.Stop()
	r.take <- struct{}{}
	c.tp.in.keepsTime = true
	c.wg.Go(r.read)
	return r, nil
}

// Exchange is a request and its reply, for callers who count allocations: Do makes
// none for small messages, when Reply has room. But a request that is the only one
// outstanding watches its context itself: one that can be cancelled, and is not that of
// the two calls before, takes five.
type Exchange struct {
	Head, Body []byte // the request is Head followed by Body
	Reply      []byte // the reply is appended to it

	// Deadline bounds Do as that of a context would, whichever is earlier, and the
	// error matches context.DeadlineExceeded; zero means ctx alone.
	Deadline time.Time
}

// Request sends body and waits for the reply, which belongs to the caller. At most
// Config.InFlight requests are outstanding; further callers wait their turn within
// ctx. body is the caller's again when Request returns. Errors match (errors.Is):
//
//   - ErrNotSent: the request was not sent, not as a whole, and the peer will not see
//     it; with the cause: ErrTooLarge when body is over MaxMessage, ctx's, ErrClosed,
//     or what ended the connection. It may be sent again.
//   - ErrConnectionLost: the connection ended after the system had taken the request;
//     with ErrClosed when it was Close that ended it. The peer may or may not have
//     seen it, so only a request that may be handled twice may be sent again.
//   - ctx's cause: ctx ended after the request was handed to the connection. The peer
//     may still handle it; its reply is dropped.
func (r *Requester) Request(ctx context.Context, body []byte) ([]byte, error) {
	x := Exchange{Body: body}
	err := r.Do(ctx, &x)
	return x.Reply, err
}

// Do is Request for an Exchange, whose fields it does not keep. On error Reply is as
// it was.
func (r *Requester) Do(ctx context.Context, x *Exchange) error {
	if err := r.do(ctx, x); err != nil {
		return &callError{"request to", r.c.url, err}
	}
	return nil
}

func (r *Requester) do(ctx context.Context, x *Exchange) error {
	if err := r.c.checkSize(len(x.Head) + len(x.Body)); err != nil {
		return err
	}
	if r.c.ended() || ctx.Err() != nil {
		return r.c.unsent(ctx)
	}
	c := calls.Get().(*call)
	defer c.putBack()
	c.reply, c.deadline, c.due = x.Reply, x.Deadline, math.MaxInt64
	c.end.Store(0)
	if !x.Deadline.IsZero() {
		c.due = int64(x.Deadline.Sub(r.began))
		if c.due <= int64(time.Since(r.began)) {
			return notSent(context.DeadlineExceeded)
		}
	}
	alone, err := r.open(ctx, c)
	if err != nil {
		return err
	}
	if err := r.write(ctx, c, x, alone); err != nil {
		if !r.forget(c) {
			<-c.done
		}
		return err
	}
	if err := r.await(ctx, c, alone); err != nil {
		return err
	}
	x.Reply = c.reply
	return nil
}

// open makes c outstanding, when its turn has come. alone says that no other is.
func (r *Requester) open(ctx context.Context, c *call) (alone bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFlight >= r.c.cfg.InFlight || len(r.turns) > 0 {
		if err := r.waitForTurn(ctx, c); err != nil {
			return false, err
		}
	} else {
		r.inFlight++
	}
	if r.ended.Load() {
		r.leave()
		return false, r.c.unsent(ctx)
	}
	if 2*r.inFlight > len(r.calls) {
		r.grow()
	}
	mask := uint32(len(r.calls) - 1)
	for {
		r.lastID++
		if r.calls[r.lastID&mask] == nil {
			break
		}
	}
	c.id = r.lastID | finalWord<<24
	r.calls[c.id&mask] = c
	if c.due < r.due {
		r.expireAt(c.due)
	}
	return r.inFlight == 1, nil
}

// grow makes room for twice as many, which find their places by one more bit.
func (r *Requester) grow() {
	old := r.calls
	r.calls = make([]*call, 2*len(old))
	for _, c := range old {
		if c != nil {
			r.calls[c.id&uint32(len(r.calls)-1)] = c
		}
	}
}

// waitForTurn waits until one less is outstanding, and takes its place. The caller
// holds mu, before and after.
func (r *Requester) waitForTurn(ctx context.Context, c *call) error {
	t := &turn{granted: make(chan struct{})}
	r.turns = append(r.turns, t)
	r.mu.Unlock()
	timeout, stop := timer(c.deadline)
	select {
	case <-t.granted:
	case <-ctx.Done():
	case <-timeout:
	case <-r.c.done:
	}
	stop()
	r.mu.Lock()
	i := slices.Index(r.turns, t)
	if i < 0 { // granted, be it at the same moment
		return nil
	}
	r.turns = slices.Delete(r.turns, i, i+1)
	if ctx.Err() == nil && !r.c.ended() {
		return notSent(context.DeadlineExceeded)
	}
	return r.c.unsent(ctx)
}

// leave gives the place of an outstanding request to the next. The caller holds mu.
func (r *Requester) leave() {
	if len(r.turns) > 0 {
		close(r.turns[0].granted)
		r.turns = slices.Delete(r.turns, 0, 1)
		return
	}
	r.inFlight--
}

// remove takes c out, if it is still outstanding. The caller holds mu.
func (r *Requester) remove(c *call) bool {
	slot := &r.calls[c.id&uint32(len(r.calls)-1)]
	if *slot != c {
		return false
	}
	*slot = nil
	r.leave()
	return true
}

// forget gives c up. False says that it was finished meanwhile.
func (r *Requester) forget(c *call) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(c)
}

// write hands the request to the connection.
func (r *Requester) write(ctx context.Context, c *call, x *Exchange, alone bool) error {
	var id [wordSize]byte
	binary.BigEndian.PutUint32(id[:], c.id)
	u := together
	if alone {
		u = atOnce
	}
	end, err := r.c.tp.out.send(ctx, c.deadline, u, id[:], x.Head, x.Body)
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		return notSent(err)
	case ctx.Err() == nil && !r.c.ended():
		return notSent(r.c.tp.fail(err))
	default:
		return r.c.unsent(ctx)
	}
	c.end.Store(end)
	if r.ended.Load() { // end may have come between, and left c to us
		if r.forget(c) {
			r.finish(c, r.lost(c))
		}
	}
	return nil
}

// await waits until c is finished or given up. The caller of the only request
// outstanding reads its reply itself: waking another goroutine for that would take
// longer than all the rest.
func (r *Requester) await(ctx context.Context, c *call, alone bool) error {
	if alone && r.lead(c, ctx) {
		return c.err
	}
	stopped := ctx.Done()
	if stopped == nil {
		<-c.done
		return c.err
	}
	select {
	case <-c.done:
		return c.err
	case <-stopped:
	}
	if r.forget(c) {
		return contextError(ctx)
	}
	<-c.done // at the same moment
	return c.err
}

// expireAt has expire run at a deadline that is the earliest. The caller holds mu.
func (r *Requester) expireAt(due int64) {
	r.due = due
	after := time.Duration(due) - time.Since(r.began)
	if r.expiry == nil {
		r.expiry = time.AfterFunc(after, r.expire)
	} else {
		r.expiry.Reset(after)
	}
}

// expire ends the requests whose deadline has passed. One timer serves them all: most
// are answered long before it runs.
func (r *Requester) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := int64(time.Since(r.began))
	if r.ended.Load() || now < r.due {
		return
	}
	next := int64(math.MaxInt64)
	for _, c := range r.calls {
		switch {
		case c == nil:
		case c.due <= now:
			r.remove(c)
			r.finish(c, context.DeadlineExceeded)
			r.c.tp.in.interrupt() // it may be its caller that reads
		default:
			next = min(next, c.due)
		}
	}
	r.due = math.MaxInt64
	if next != math.MaxInt64 {
		r.expireAt(next)
	}
}

// answer gives a reply to its call; each id is answered once. A reply to a call that
// was given up is counted and dropped. It reports whether the reply's own memory was
// passed on.
func (r *Requester) answer(id uint32, reply []byte, own bool) (kept bool) {
	r.mu.Lock()
	c := r.calls[id&uint32(len(r.calls)-1)]
	if c == nil || c.id != id {
		r.mu.Unlock()
		r.c.stats.lateReplies.Add(1)
		return false
	}
	r.remove(c)
	r.mu.Unlock()
	// c is ours now.
	if kept = own && cap(c.reply) == 0; kept {
		c.reply = reply
	} else {
		c.reply = append(c.reply, reply...)
	}
	r.finish(c, nil)
	return kept
}

// end fails what is outstanding: the connection has ended, and nothing more is written.
func (r *Requester) end() {
	r.c.tp.in.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended.Store(true)
	if r.expiry != nil {
		r.expiry.Stop()
	}
	r.unwatch()
	r.idle.Stop()
	for _, c := range r.calls {
		if c == nil || c.end.Load() == 0 { // it hears of it from the writer
			continue
		}
		r.remove(c)
		r.finish(c, r.lost(c))
	}
}

// lost is the error of a request whose connection has ended.
func (r *Requester) lost(c *call) error {
	cause := r.c.tp.endedBy()
	if !r.c.tp.out.isWritten(c.end.Load()) {
		return notSent(cause)
	}
	return fmt.Errorf("%w: %w", ErrConnectionLost, cause)
}

// finish tells the caller of c, which was removed.
func (r *Requester) finish(c *call, err error) {
	c.err = err
	c.done <- struct{}{}
}

// Done is closed when the connection is lost, also when nothing is outstanding, or
// closed.
func (r *Requester) Done() <-chan struct{} { return r.c.done }

// InFlight is the number of requests outstanding.
func (r *Requester) InFlight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inFlight
}

// LastRead is when something was last read from the connection, be it part of a
// reply, or else when the connection was made. A call that ended by its context
// while nothing was read since it began suggests that the peer has vanished, which
// the system may take minutes to notice.
func (r *Requester) LastRead() time.Time { return r.c.tp.in.last() }

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
