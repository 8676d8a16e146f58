package sp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Who reads the replies of a Requester: one goroutine at a time, and always one while
// something is outstanding. It is the caller of a request that is the only one, until
// it has its reply; else it is the Requester's own goroutine, which reads until nothing
// is outstanding any more, and again after a rest, to notice the connection's end.

// idleTime is how long nobody reads, at most twice that.
const idleTime = 50 * time.Millisecond

// watched is a context, known by its channel since contexts need not be comparable,
// whose end interrupts the reader. When it was that of two calls in a row it stays
// registered for the next: it may be that of many. Any other is let go after its call,
// for it is usually cancelled then.
type watched struct {
	done  <-chan struct{} // of the last call that read
	stop  func() bool     // nil: not registered any more
	stays bool
}

// lead has the caller of c read until c is finished or ctx ends; then the result is in
// c.err. False says that another goroutine reads.
func (r *Requester) lead(c *call, ctx context.Context) bool {
	r.mu.Lock()
	if r.reading || r.ended.Load() {
		r.mu.Unlock()
		return false
	}
	r.reading = true
	r.watch(ctx)
	r.mu.Unlock()
	if !r.led.Load() {
		r.led.Store(true)
	}
	in := r.c.tp.in
	for {
		select {
		case <-c.done:
			r.pass()
			return true
		default:
		}
		if ctx.Err() != nil && r.forget(c) {
			c.err = contextError(ctx)
			r.pass()
			return true
		}
		err := r.readOne()
		switch {
		case err == nil:
		case errors.Is(err, errInterrupted):
			in.resume() // what we were interrupted for, if it was us, shows above
		default:
			r.broken(err)
			r.pass()
			return false
		}
	}
}

// watch has the end of ctx interrupt the reader. The caller holds mu.
func (r *Requester) watch(ctx context.Context) {
	done := ctx.Done()
	again := done == r.watched.done
	if done == nil || again && r.watched.stop != nil {
		return
	}
	r.unwatch()
	r.watched = watched{done, context.AfterFunc(ctx, r.c.tp.in.interrupt), again}
}

// unwatch ends what watch began. The caller holds mu.
func (r *Requester) unwatch() {
	if r.watched.stop != nil {
		r.watched.stop()
		r.watched.stop = nil
	}
}

// pass ends the reading of a caller. What is still outstanding our own goroutine reads.
func (r *Requester) pass() {
	r.mu.Lock()
	if !r.watched.stays {
		r.unwatch()
	}
	r.reading = r.inFlight > 0 || r.c.tp.hasEnded()
	more := r.reading
	r.mu.Unlock()
	if more {
		r.take <- struct{}{}
	} else if r.alert.CompareAndSwap(false, true) {
		r.idle.Reset(idleTime)
	}
}

// lookIdle is the idle timer: when no caller has read lately, our own goroutine does.
func (r *Requester) lookIdle() {
	if r.led.Swap(false) {
		r.idle.Reset(idleTime)
		return
	}
	r.alert.Store(false)
	r.mu.Lock()
	free := !r.reading
	r.reading = true
	r.mu.Unlock()
	if free {
		r.take <- struct{}{}
	}
}

// read is our own goroutine. It ends with the connection, and then ends what is
// outstanding.
func (r *Requester) read() {
	defer r.end()
	for {
		select {
		case <-r.take:
		case <-r.c.done:
			r.mu.Lock()
			others := r.reading
			r.reading = true
			r.mu.Unlock()
			if others {
				<-r.take // the caller that reads sees the end, too, and passes
			}
			return
		}
		for again := true; again; again = !r.rest() {
			if err := r.readBatch(); err != nil {
				r.broken(err)
				return
			}
		}
	}
}

// readBatch reads the replies that came together. Those who got them have their next
// requests written together.
func (r *Requester) readBatch() error {
	in, out := r.c.tp.in, r.c.tp.out
	frame, own, err := in.next()
	for errors.Is(err, errInterrupted) {
		in.resume()
		frame, own, err = in.next()
	}
	if err != nil {
		return err
	}
	out.collecting.Store(true)
	for err = r.deliver(frame, own); err == nil && in.ready(); {
		if frame, own, err = in.next(); err == nil {
			err = r.deliver(frame, own)
		}
	}
	runtime.Gosched()
	out.collecting.Store(false)
	out.flush()
	return err
}

// rest ends the reading of our own goroutine when nothing is outstanding.
func (r *Requester) rest() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFlight > 0 {
		return false
	}
	r.reading = false
	if r.alert.CompareAndSwap(false, true) {
		r.idle.Reset(idleTime)
	}
	return true
}

// readOne reads one reply and gives it to its call.
func (r *Requester) readOne() error {
	frame, own, err := r.c.tp.in.next()
	if err != nil {
		return err
	}
	return r.deliver(frame, own)
}

// deliver gives a reply to its call.
func (r *Requester) deliver(frame []byte, own bool) error {
	if len(frame) < wordSize || frame[0]&finalWord == 0 {
		return fmt.Errorf("%w: a reply without an id", ErrMalformed)
	}
	if r.answer(binary.BigEndian.Uint32(frame), frame[wordSize:], own) {
		r.c.tp.in.keep()
	}
	return nil
}

// broken ends the connection because of an error of the reader.
func (r *Requester) broken(err error) {
	_ = r.c.tp.fail(err)
	r.c.tp.closeWith(r.c.pp)
}
