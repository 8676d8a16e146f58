package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/test/chaos"
)

// requestLane is one Requester after the other, with a Proxy and a Replier of their
// own, so that one can tell at both ends when a connection is over.
type requestLane struct {
	*run
	name    string
	replier *sp.Replier
	proxy   *chaos.Proxy
	records chan chaos.Record
	cfg     sp.Config
	callers []*chaos.Sender
	pending []uint64 // by caller: what was not sent, to be sent on the next connection

	connections, dialed int
}

func newRequestLane(r *run, name string, callers int, plan chaos.Plan, cfg sp.Config) *requestLane {
	l := &requestLane{run: r, name: name, records: make(chan chaos.Record, 16), cfg: cfg, pending: make([]uint64, callers)}
	l.cfg.Logger = silent
	var err error
	if l.replier, err = sp.ListenReplier(anyPort(cfg), l.handle, l.cfg); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = l.replier.Close() })
	l.proxy = r.listen(name, chaos.Config{
		Target: target(l.replier.URL()), Plan: plan, Buffer: socketBuffer,
		Ended: func(rec chaos.Record) { l.records <- rec },
	})
	for i := range callers {
		l.callers = append(l.callers, r.h.Sender(fmt.Sprintf("%s caller %d", name, i+1)))
	}
	return l
}

// handle echoes. What it does besides follows from the message.
func (l *requestLane) handle(ctx context.Context, in sp.Inbound) []byte {
	m, ok := l.h.Handled(in.Body)
	if !ok {
		return nil
	}
	rnd := rand.New(rand.NewPCG(l.seed, m.Seq<<8|uint64(m.Sender)))
	switch rnd.IntN(100) {
	case 0: // for long, or as long as anyone waits
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rnd.Int64N(int64(40 * time.Millisecond)))):
		}
	case 1, 2, 3, 4: // for a while
		time.Sleep(time.Duration(rnd.Int64N(int64(4 * time.Millisecond))))
	}
	if again, err := chaos.Parse(in.Body); err != nil || again != *m {
		l.h.Violation("%s: a body changed while it was handled: %v, %v", l.name, again, err)
	}
	if rnd.IntN(2000) == 0 {
		return nil // no reply
	}
	reply := m.Reply(size(rnd))
	switch rnd.IntN(4) {
	case 0: // in the request's memory
		reply.Size = min(reply.Size, len(in.Body))
		return reply.Append(in.Body[:0:len(in.Body)])
	case 1: // in what is ours for good
		body := in.Take()
		return reply.Append(body[:0])
	case 2:
		return reply.Append(nil)
	}
	return reply.Append(in.Scratch)
}

// carry makes connections and has requests sent over them until the run is over.
func (l *requestLane) carry() {
	rnd := l.chance("%s requester", l.name)
	for path := uint32(1); !l.over(); path++ {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		q, err := sp.DialRequester(ctx, by(l.proxy.Addr(), l.replier.URL()), l.cfg)
		cancel()
		l.connections++
		if err == nil {
			l.dialed++
			l.use(rnd, q, path)
		}
		l.settle()
	}
}

// use sends requests over q until it ends, or ends it.
func (l *requestLane) use(rnd *rand.Rand, q *sp.Requester, path uint32) {
	var wg sync.WaitGroup
	finish := make(chan struct{})
	seed := rnd.Uint64()
	for i := range l.callers {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { l.call(rnd, q, path, i, finish) })
	}
	how := rnd.IntN(8)
	var due <-chan time.Time
	if how < 4 {
		due = time.After(time.Duration(rnd.Int64N(int64(80 * time.Millisecond))))
	}
	select {
	case <-q.Done():
	case <-due:
	}
	switch {
	case ended(q.Done()):
	case how < 2: // everybody waits for replies
		_ = q.Close()
	case how < 4: // nobody does
		close(finish)
		waited := make(chan struct{})
		go func() { // ends with the callers, whom the connection's end frees
			wg.Wait()
			close(waited)
		}()
		select {
		case <-waited:
		case <-q.Done():
		case <-time.After(200 * time.Millisecond): // a reply that never comes, or is in a black hole
		}
		_ = q.Close()
	}
	began := time.Now()
	if !l.wait(fmt.Sprintf("%s: the calls of connection %d return", l.name, path), &wg) {
		return
	}
	l.late.Add(time.Since(began))
	_ = q.Close()
	l.sound(fmt.Sprintf("%s: requester %d", l.name, path), q.Stats())
	if n := q.InFlight(); n != 0 {
		l.h.Violation("%s connection %d: %d requests are in flight after Close", l.name, path, n)
	}
}

// call sends one request after the other until q has ended or finish is closed.
func (l *requestLane) call(rnd *rand.Rand, q *sp.Requester, path uint32, i int, finish <-chan struct{}) {
	s := l.callers[i]
	var buf, room []byte
	for !ended(finish) {
		var m *chaos.Message
		if l.pending[i] != 0 {
			m = s.Again(l.pending[i], path)
		} else {
			m = s.Next(path, size(rnd))
		}
		l.pending[i] = 0
		buf = m.Append(buf[:0])
		ctx, done := l.limit(rnd, 20)
		var deadline time.Time
		if rnd.IntN(20) == 0 {
			deadline = time.Now().Add(time.Duration(rnd.Int64N(int64(8 * time.Millisecond))))
		}
		reply, err := ask(ctx, rnd, q, buf, room, deadline)
		if !deadline.IsZero() && errors.Is(err, context.DeadlineExceeded) {
			l.late.Add(max(0, time.Since(deadline)))
		}
		done()
		scribble(buf)
		switch {
		case err == nil:
			s.Answered(m.Seq)
			if echo, err := chaos.Parse(reply); err != nil {
				l.h.Violation("%s: a reply is altered: %v", l.name, err)
			} else if !echo.Answers(m) {
				l.h.Violation("%s: the reply to %+v is %+v", l.name, *m, echo)
			}
			room = reply
		case errors.Is(err, sp.ErrNotSent):
			l.refusal(err)
			s.Refused(m.Seq)
			l.pending[i] = m.Seq
		case errors.Is(err, sp.ErrConnectionLost):
			s.Unknown(m.Seq)
			if !ended(q.Done()) {
				l.h.Violation("%s: %v, and the connection has not ended", l.name, err)
			}
		case ctx.Err() != nil && errors.Is(err, ctx.Err()), !deadline.IsZero() && errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(deadline):
			s.Unknown(m.Seq)
		default:
			s.Unknown(m.Seq)
			l.h.Violation("%s: an error of no kind: %v", l.name, err)
		}
		if ended(q.Done()) {
			return
		}
	}
}

// settle waits until the connection is over at both ends: whatever may be handled,
// has been.
func (l *requestLane) settle() {
	select {
	case rec := <-l.records:
		if rec.Ended == chaos.Orderly {
			l.orderly.Add(1)
		}
	case <-time.After(patience):
		l.abort("%s: the proxy's connection does not end", l.name)
		return
	}
	if l.eventually(l.name+": the replier is done with the connection", func() bool {
		st := l.replier.Stats()
		return st.Pipes == 0 && st.Pending == 0 && st.Handling == 0
	}) {
		l.sound(l.name+": the replier", l.replier.Stats())
		for _, s := range l.callers {
			s.Settle()
		}
	}
}

// Requests and replies over connections that break in every way, all the time: each
// request is handled once at most, a reply belongs to its request, what was not sent
// is not handled, also not later, and is safe to send again; every call returns soon
// after its context or its connection has ended.
func TestRequest(t *testing.T) {
	r := newRun(t, chaos.Rules{})
	lanes := []*requestLane{
		newRequestLane(r, "request", 8, chaos.Rough(), sp.Config{}),
		newRequestLane(r, "tight request", 16, chaos.Rough(), sp.Config{InFlight: 4, QueueBytes: 32 << 10}),
		newRequestLane(r, "single request", 1, chaos.Rough(), sp.Config{}),
		newRequestLane(r, "fast request", 32, brisk(), sp.Config{}),
		newRequestLane(r, "secret request", 8, chaos.Rough(), sp.Config{TLS: secret(t)}),
		newRequestLane(r, "polling request", 2, brisk(), sp.Config{Poll: 20 * time.Microsecond}),
	}
	var wg sync.WaitGroup
	for _, l := range lanes {
		wg.Go(l.carry)
	}
	r.watch(floor{cuts: 10, resets: 5, halfCloses: 5, blackHoles: 2, orderly: 5, splits: 50, delays: 20, stalls: 10, handled: 2000})
	wg.Wait()
	for _, l := range lanes {
		t.Logf("%s: %d connections, of which %d shook hands", l.name, l.connections, l.dialed)
	}
	r.report()
}
