package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/test/chaos"
)

const greetingSize, lengthSize = 8, 8 // of SP on the wire, bytes

// pushLane is one Pusher after the other, with a Proxy and a Puller of their own, so
// that one can tell at both ends when a connection is over.
type pushLane struct {
	*run
	name    string
	puller  *sp.Puller
	proxy   *chaos.Proxy
	records chan chaos.Record
	cfg     sp.Config
	size    func(*rand.Rand) int
	senders []*chaos.Sender
	pending []uint64 // by sender: what the last connection refused, to be sent on the next

	keep     kept
	wire     atomic.Int64 // bytes handled on this connection, with their lengths
	accepted atomic.Int64 // messages accepted on this connection

	connections, dialed int
	lost, lostBytes     int // written and not handled
	worst               int // bytes of one connection that the proxy did not swallow
	reported            int // never written
}

func newPushLane(r *run, name string, senders int, plan chaos.Plan, cfg sp.Config) *pushLane {
	l := &pushLane{run: r, name: name, records: make(chan chaos.Record, 16), cfg: cfg, size: size, pending: make([]uint64, senders)}
	l.cfg.Logger = silent
	l.keep.r = r
	rnd := r.chance("%s puller", name)
	var err error
	l.puller, err = sp.ListenPuller(anyPort(cfg), func(_ context.Context, in sp.Inbound) { l.handle(rnd, in) }, l.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = l.puller.Close() })
	l.proxy = r.listen(name, chaos.Config{
		Target: target(l.puller.URL()), Plan: plan, Buffer: socketBuffer,
		Ended: func(rec chaos.Record) { l.records <- rec },
	})
	for i := range senders {
		l.senders = append(l.senders, r.h.Sender(fmt.Sprintf("%s sender %d", name, i+1)))
	}
	return l
}

// handle is called for one message at a time: there is one connection.
func (l *pushLane) handle(rnd *rand.Rand, in sp.Inbound) {
	m, ok := l.h.Handled(in.Body)
	l.wire.Add(int64(lengthSize + len(in.Body)))
	if !ok {
		return
	}
	if rnd.IntN(3000) == 0 { // presses back
		time.Sleep(time.Duration(rnd.Int64N(int64(3 * time.Millisecond))))
		if again, err := chaos.Parse(in.Body); err != nil || again != *m {
			l.h.Violation("%s: a body changed while it was handled: %v, %v", l.name, again, err)
		}
	}
	if rnd.IntN(50) == 0 {
		l.keep.swap(in.Take(), *m)
		return
	}
	scribble(in.Body)
}

// carry makes connections and has messages sent over them until the run is over.
func (l *pushLane) carry() {
	rnd := l.chance("%s pusher", l.name)
	var resend [][]byte
	for path := uint32(1); !l.over(); path++ {
		l.wire.Store(0)
		l.accepted.Store(0)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		p, err := sp.DialPusher(ctx, by(l.proxy.Addr(), l.puller.URL()), l.cfg)
		cancel()
		l.connections++
		if err == nil {
			l.dialed++
			resend = l.use(rnd, p, path, resend)
			l.reported += len(resend)
		}
		l.settle()
	}
}

// use sends over p until it ends, or ends it, and returns what was not written.
func (l *pushLane) use(rnd *rand.Rand, p *sp.Pusher, path uint32, resend [][]byte) [][]byte {
	var wg sync.WaitGroup
	finish := make(chan struct{})
	seed := rnd.Uint64()
	wg.Go(func() {
		if !l.again(p, path, resend) {
			return
		}
		for i := range l.senders {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			wg.Go(func() { l.send(rnd, p, path, i, finish) })
		}
	})
	how := rnd.IntN(8)
	if how < 4 {
		<-p.Done()
	} else {
		select {
		case <-p.Done():
		case <-time.After(time.Duration(rnd.Int64N(int64(60 * time.Millisecond)))):
		}
	}
	if how == 4 { // everybody sends while it closes
		_ = p.Close()
	}
	close(finish)
	began := time.Now()
	if how != 7 && !l.wait(fmt.Sprintf("%s: the calls of connection %d return", l.name, path), &wg) {
		return nil
	}
	if ended(p.Done()) {
		l.late.Add(time.Since(began))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch how {
	case 5:
		_ = p.Drain(ctx)
	case 6, 7: // 7: while they send
		_ = p.Shutdown(ctx)
	}
	if ctx.Err() != nil {
		l.abort("%s connection %d does not drain", l.name, path)
	}
	if !l.wait(fmt.Sprintf("%s: the calls of connection %d return", l.name, path), &wg) {
		return nil
	}
	_ = p.Close()
	l.sound(fmt.Sprintf("%s: pusher %d", l.name, path), p.Stats())
	bodies := p.Unsent()
	if n, bytes := p.Lost(); n != 0 || bytes != 0 {
		l.h.Violation("%s connection %d: %d messages and %d bytes are lost beside the unsent", l.name, path, n, bytes)
	}
	for _, b := range bodies {
		if m, err := chaos.Parse(b); err != nil {
			l.h.Violation("%s connection %d: unsent: %v", l.name, path, err)
		} else {
			l.h.Of(&m).Unsent(m.Seq)
		}
	}
	return bodies
}

// again sends what the last connection accepted and never wrote; false when this
// one ends over it.
func (l *pushLane) again(p *sp.Pusher, path uint32, bodies [][]byte) bool {
	for _, b := range bodies {
		m, err := chaos.Parse(b)
		if err != nil {
			continue // was told
		}
		s := l.h.Of(&m)
		s.Resend(m.Seq, path)
		if err := p.Send(context.Background(), b); err != nil {
			l.refusal(err)
			s.Refused(m.Seq)
			return false // what follows is lost: with it there would be a gap
		}
		l.accepted.Add(1)
		s.Accepted(m.Seq)
	}
	return true
}

// send sends until p has ended or finish is closed.
func (l *pushLane) send(rnd *rand.Rand, p *sp.Pusher, path uint32, i int, finish <-chan struct{}) {
	s := l.senders[i]
	var buf []byte
	for !ended(finish) {
		var m *chaos.Message
		if l.pending[i] != 0 {
			m = s.Again(l.pending[i], path)
		} else {
			m = s.Next(path, l.size(rnd))
		}
		l.pending[i] = 0
		buf = m.Append(buf[:0])
		ctx, done := l.limit(rnd, 200)
		err := p.Send(ctx, parts(rnd, buf)...)
		gaveUp := ctx.Err() != nil
		done()
		if err == nil {
			scribble(buf)
			l.accepted.Add(1)
			s.Accepted(m.Seq)
			continue
		}
		l.refusal(err)
		s.Refused(m.Seq)
		if !gaveUp { // so the connection ends, or is shut down
			began := time.Now()
			select {
			case <-p.Done():
				l.late.Add(time.Since(began))
			case <-finish:
			case <-time.After(patience):
				l.abort("%s: %v, and the connection does not end", l.name, err)
				return
			}
		}
		if ended(p.Done()) || rnd.IntN(2) == 0 {
			l.pending[i] = m.Seq
		}
		if ended(p.Done()) {
			return
		}
	}
}

// settle waits until the connection is over at both ends, and holds against each
// other what was written, what came through the proxy and what was handled.
func (l *pushLane) settle() {
	var rec chaos.Record
	select {
	case rec = <-l.records:
	case <-time.After(patience):
		l.abort("%s: the proxy's connection does not end", l.name)
		return
	}
	if !l.eventually(l.name+": the puller is done with the connection", func() bool {
		st := l.puller.Stats()
		return st.Pipes == 0 && st.Pending == 0 && st.Handling == 0
	}) {
		return
	}
	l.sound(l.name+": the puller", l.puller.Stats())
	var lost, lostBytes int
	for _, s := range l.senders {
		n, b := s.Settle()
		lost, lostBytes = lost+n, lostBytes+b
	}
	where := fmt.Sprintf("%s connection %d (%v, %d bytes up)", l.name, rec.Number, rec.Ended, rec.Up.Written)
	if rec.Ended == chaos.Orderly {
		l.orderly.Add(1)
	}
	if rec.Ended == chaos.Orderly && lost != 0 {
		l.h.Violation("%s: nobody cut it, and %d messages (%d bytes) that were written were not handled", where, lost, lostBytes)
	}
	swallowed := int(rec.Up.Read - rec.Up.Written)
	if most := held(); most > 0 && lostBytes+lengthSize*lost > most+swallowed {
		l.h.Violation("%s: lost %d messages (%d bytes), more than sockets hold (%d) and the proxy swallowed (%d)", where, lost, lostBytes, most, swallowed)
	}
	// Of what came to the puller, all is handled but the message that was cut.
	// After a reset, before the greetings are over, and in secret, one cannot know what came.
	if l.cfg.TLS == nil && rec.Ended != chaos.Reset && rec.Ended != chaos.Broken && rec.Down.Read >= greetingSize {
		if rest := rec.Up.Written - greetingSize - l.wire.Load(); rest >= 1<<19 || rest < 0 && rec.Up.Written >= greetingSize {
			l.h.Violation("%s: %d bytes came, and of messages that were handled only %d", where, rec.Up.Written-greetingSize, l.wire.Load())
		}
	}
	l.lost += lost
	l.lostBytes += lostBytes
	l.worst = max(l.worst, lostBytes-swallowed)
}

// brisk is rough, and holds little up, so that much is under way.
func brisk() chaos.Plan {
	p := chaos.Rough()
	p.Split, p.Delay, p.Stall, p.MaxBytes = 0.02, 0.001, 0.001, 64<<20
	return p
}

// Push and pull over connections that break in every way, all the time: nothing is
// invented, altered or doubled, the order of each sender is kept, also over
// reconnects, what is missing is the end of what a connection took, and no more than
// the sockets held; what is reported as never written, is not handled; and when
// nobody cuts, nothing is missing.
func TestPush(t *testing.T) {
	r := newRun(t, chaos.Rules{Increasing: true, Prefix: true})
	lanes := []*pushLane{
		newPushLane(r, "push", 3, chaos.Rough(), sp.Config{}),
		newPushLane(r, "tight push", 3, chaos.Rough(), sp.Config{QueueBytes: 32 << 10}),
		newPushLane(r, "single push", 1, chaos.Rough(), sp.Config{}),
		newPushLane(r, "fast push", 2, brisk(), sp.Config{}),
		newPushLane(r, "secret push", 2, brisk(), sp.Config{TLS: secret(t)}),
		newPushLane(r, "polling push", 1, chaos.Rough(), sp.Config{Poll: 20 * time.Microsecond}),
	}
	lanes[3].size = func(rnd *rand.Rand) int { return chaos.MinSize + rnd.IntN(100) }
	var wg sync.WaitGroup
	for _, l := range lanes {
		wg.Go(l.carry)
	}
	r.watch(floor{cuts: 10, resets: 5, halfCloses: 5, blackHoles: 2, orderly: 5, splits: 50, delays: 20, stalls: 10, handled: 5000})
	wg.Wait()
	for _, l := range lanes {
		t.Logf("%s: %d connections, of which %d shook hands; written and not handled %d messages, %d bytes, in one at most %d bytes that the proxy did not swallow; reported as never written %d",
			l.name, l.connections, l.dialed, l.lost, l.lostBytes, l.worst, l.reported)
	}
	r.report()
}
