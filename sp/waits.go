package sp

import (
	"context"
	"slices"
	"time"
)

// target is somebody who waits for the stream to be written up to a place.
type target struct {
	at   uint64
	done chan struct{}
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
