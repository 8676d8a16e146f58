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
	"github.com/parley-mesh/parley/unicast"
)

// slowness is what a run over a slow network must have seen.
var slowness = floor{splits: 50, delays: 10, stalls: 5, handled: 500}

// Over a network that is slow but breaks nothing, a Pusher that is shut down, or
// drained and closed, loses nothing at all.
func TestCleanPush(t *testing.T) {
	r := newRun(t, chaos.Rules{Increasing: true, Prefix: true})
	rnd := r.chance("rounds")
	configs := []sp.Config{{Logger: silent}, {Logger: silent, TLS: secret(t)}}
	var urls []string
	for i, cfg := range configs {
		puller, err := sp.ListenPuller(anyPort(cfg), func(_ context.Context, in sp.Inbound) { r.h.Handled(in.Body) }, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = puller.Close() })
		proxy := r.listen(fmt.Sprintf("clean %d", i), chaos.Config{Target: target(puller.URL()), Plan: chaos.Slow(), Buffer: socketBuffer})
		urls = append(urls, by(proxy.Addr(), puller.URL()))
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.watch(slowness) })
	for path := uint32(1); !r.over(); path++ {
		p, err := sp.DialPusher(within(t, patience), urls[path%2], configs[path%2])
		if err != nil {
			t.Fatal(err)
		}
		s := r.h.Sender(fmt.Sprintf("sender %d", path))
		var buf []byte
		for range 1 + rnd.IntN(500) {
			m := s.Next(path, size(rnd))
			buf = m.Append(buf[:0])
			if err := p.Send(within(t, patience), buf); err != nil {
				t.Fatal(err)
			}
			scribble(buf)
			s.Accepted(m.Seq)
		}
		shut := rnd.IntN(2) == 0
		if shut {
			err = p.Shutdown(within(t, patience))
		} else {
			err = p.Drain(within(t, patience))
		}
		queued, _ := p.Queued()
		lost, _ := p.Lost()
		if err != nil || queued != 0 || lost != 0 {
			t.Errorf("connection %d: %v, %d messages queued, %d lost", path, err, queued, lost)
		}
		_ = p.Close()
		done := func() bool { tally := s.Tally(); return tally.Handled == tally.Accepted }
		if shut && !done() { // the Puller ends the connection when it has handled the last
			t.Errorf("connection %d: %v after Shutdown", path, s.Tally())
		}
		eventually(t, "all is handled", done)
		s.Settle()
	}
	wg.Wait()
	if tally := r.h.Tally(); tally.Lost != 0 || tally.Handled != tally.Sent {
		t.Error(tally)
	}
	r.report()
}

// Over a slow network, what a Pusher has sent to a Puller that is shut down meanwhile
// is handled, or the Pusher still has it.
func TestCleanPull(t *testing.T) {
	r := newRun(t, chaos.Rules{Increasing: true, Prefix: true})
	rnd := r.chance("rounds")
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(slowness) })
	for path := uint32(1); !r.over(); path++ {
		cfg := sp.Config{Logger: silent}
		if path%2 == 0 {
			cfg.TLS = secret(t)
		}
		puller, err := sp.ListenPuller(anyPort(cfg), func(_ context.Context, in sp.Inbound) { r.h.Handled(in.Body) }, cfg)
		if err != nil {
			t.Fatal(err)
		}
		proxy := r.listen(fmt.Sprintf("clean %d", path), chaos.Config{Target: target(puller.URL()), Plan: chaos.Slow(), Buffer: socketBuffer})
		p, err := sp.DialPusher(within(t, patience), by(proxy.Addr(), puller.URL()), cfg)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var senders []*chaos.Sender
		for i := range 2 {
			s := r.h.Sender(fmt.Sprintf("round %d sender %d", path, i))
			senders = append(senders, s)
			rnd := r.chance("round %d sender %d", path, i)
			wg.Go(func() {
				for i := 0; ; i++ {
					n := 40 + rnd.IntN(2000)
					if rnd.IntN(100) == 0 {
						n = 100 << 10
					}
					m := s.Next(path, n)
					if err := p.Send(context.Background(), m.Append(nil)); err != nil {
						r.refusal(err)
						s.Refused(m.Seq)
						return
					}
					s.Accepted(m.Seq)
					if i%50 == 0 { // a Puller has a second for what is under way
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(100 * time.Millisecond))))
		if err := puller.Shutdown(within(t, patience)); err != nil {
			t.Errorf("round %d: %v", path, err)
		}
		r.wait("sends return", &wg)
		_ = p.Close()
		r.sound("the puller", puller.Stats())
		for _, b := range p.Unsent() {
			if m, err := chaos.Parse(b); err != nil {
				t.Errorf("round %d: unsent: %v", path, err)
			} else {
				r.h.Of(&m).Unsent(m.Seq)
			}
		}
		for _, s := range senders {
			if lost, bytes := s.Settle(); lost != 0 {
				t.Errorf("round %d (TLS: %v): %d messages, %d bytes, are neither handled nor unsent; %v", path, cfg.TLS != nil, lost, bytes, s.Tally())
			}
		}
		proxy.Close()
		if t.Failed() {
			r.aborted.Store(true)
		}
	}
	watching.Wait()
	r.report()
}

// Over a slow network every request is answered, and a Replier that is shut down
// answers all that it has handled.
func TestCleanRequest(t *testing.T) {
	r := newRun(t, chaos.Rules{})
	rnd := r.chance("rounds")
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(floor{splits: 50, delays: 10, stalls: 5, handled: 200}) })
	for path := uint32(1); !r.over(); path++ {
		cfg := sp.Config{Logger: silent}
		if path%2 == 0 {
			cfg.TLS = secret(t)
		}
		replier, err := sp.ListenReplier(anyPort(cfg), func(_ context.Context, in sp.Inbound) []byte {
			m, ok := r.h.Handled(in.Body)
			if !ok {
				return nil
			}
			rnd := rand.New(rand.NewPCG(r.seed, m.Seq))
			if rnd.IntN(20) == 0 {
				time.Sleep(time.Duration(rnd.Int64N(int64(3 * time.Millisecond))))
			}
			n := size(rnd)
			if rnd.IntN(4) == 0 { // so that some are still on their way out at the end
				n = 300 << 10
			}
			return m.Reply(n).Append(in.Scratch)
		}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		proxy := r.listen(fmt.Sprintf("clean %d", path), chaos.Config{Target: target(replier.URL()), Plan: chaos.Slow(), Buffer: socketBuffer})
		q, err := sp.DialRequester(within(t, patience), by(proxy.Addr(), replier.URL()), cfg)
		if err != nil {
			t.Fatal(err)
		}
		shutting, stop := atomic.Bool{}, make(chan struct{})
		var callers sync.WaitGroup
		var senders []*chaos.Sender
		for i := range 24 {
			s := r.h.Sender(fmt.Sprintf("round %d caller %d", path, i))
			senders = append(senders, s)
			rnd := r.chance("round %d caller %d", path, i)
			callers.Go(func() {
				var buf []byte
				for !ended(stop) {
					m := s.Next(path, size(rnd))
					buf = m.Append(buf[:0])
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					reply, err := q.Request(ctx, buf)
					cancel()
					scribble(buf)
					if err != nil {
						s.Unknown(m.Seq)
						if !shutting.Load() {
							r.h.Violation("round %d: %v", path, err)
						}
						return
					}
					s.Answered(m.Seq)
					if echo, err := chaos.Parse(reply); err != nil || !echo.Answers(m) {
						r.h.Violation("round %d: the reply to %+v is %+v, %v", path, *m, echo, err)
					}
				}
			})
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(200 * time.Millisecond))))
		if rnd.IntN(2) == 0 {
			close(stop)
			callers.Wait()
		}
		shutting.Store(true)
		if err := replier.Shutdown(within(t, patience)); err != nil {
			t.Errorf("round %d: %v", path, err)
		}
		callers.Wait() // their connection has ended
		r.sound("the replier", replier.Stats())
		r.sound("the requester", q.Stats())
		var sum chaos.Tally
		for _, s := range senders {
			s.Settle()
			sum = sum.Add(s.Tally())
		}
		if sum.Handled != sum.Answered {
			t.Errorf("round %d: %v", path, sum)
		}
		_ = q.Close()
		proxy.Close()
		if t.Failed() {
			r.aborted.Store(true)
		}
	}
	watching.Wait()
	r.report()
}

// Over a slow network a Messenger that is shut down has sent all its pushes, and
// in their order; every call succeeds, or its handler failed.
func TestCleanUnicast(t *testing.T) {
	r := newRun(t, chaos.Rules{})
	pushes := chaos.NewHistory(chaos.Rules{Increasing: true, Prefix: true})
	w := newTown(func(node, service, hostport string) string {
		return r.listen(node+" "+service, chaos.Config{Target: hostport, Plan: chaos.Slow(), Buffer: socketBuffer}).Addr()
	})
	a := newMail(r, w, "a", pushes, 8, 1, unicast.Config{QueueBytes: 256 << 10})
	b := newMail(r, w, "b", pushes, 8, 1, unicast.Config{QueueBytes: 256 << 10})
	a.soon, b.soon = [2]int{}, [2]int{}
	var wg sync.WaitGroup
	a.work(&wg, "b", r.over)
	b.work(&wg, "a", r.over)
	r.watch(slowness)
	wg.Wait()
	if err := a.m.Shutdown(within(t, patience)); err != nil {
		t.Error(err)
	}
	eventually(t, "all pushes of a are handled", func() bool { sum := a.pushTally(); return sum.Handled == sum.Accepted })
	// b's pushes to a were on their way when a closed.
	if err := b.m.Shutdown(within(t, patience)); err != nil {
		t.Logf("b: %v", err)
	}
	r.h.Settle()
	pushes.Settle()
	if a.pushTally().Lost != 0 {
		t.Errorf("pushes of a: %v", a.pushTally())
	}
	if tally := r.h.Tally(); tally.Answered != tally.Sent || tally.Handled != tally.Sent {
		t.Errorf("calls: %v", tally)
	}
	t.Logf("pushes: %v", pushes.Tally())
	pushes.Check(t)
	r.report()
}
