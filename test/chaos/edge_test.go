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

// Handlers that take about as long as it takes a Replier to lose patience with them,
// and have another goroutine read on. Many requests come at once, so that there is
// something to read, and connections come and go, so that memory changes hands.
func TestHandlersAtTheEdge(t *testing.T) {
	r := newRun(t, chaos.Rules{})
	replier, err := sp.ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) []byte {
		m, ok := r.h.Handled(in.Body)
		if !ok {
			return nil
		}
		if rnd := rand.New(rand.NewPCG(r.seed, m.Seq)); rnd.IntN(8) == 0 {
			end := time.Now().Add(time.Duration(500+rnd.IntN(2000)) * time.Microsecond)
			if rnd.IntN(2) == 0 {
				time.Sleep(time.Until(end))
			}
			for time.Now().Before(end) {
			}
		}
		if again, err := chaos.Parse(in.Body); err != nil || again != *m {
			r.h.Violation("a body changed while it was handled: %v, %v", again, err)
		}
		return m.Reply(200).Append(in.Scratch)
	}, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replier.Close() })
	var lanes sync.WaitGroup
	for lane := range 3 {
		lanes.Go(func() {
			rnd := r.chance("lane %d", lane)
			for path := uint32(1); !r.over(); path++ {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				q, err := sp.DialRequester(ctx, replier.URL(), sp.Config{Logger: silent})
				cancel()
				if err != nil {
					r.abort("%v", err)
					return
				}
				var callers sync.WaitGroup
				for i := range 24 {
					s := r.h.Sender(fmt.Sprintf("lane %d connection %d caller %d", lane, path, i))
					n := 1 + rnd.IntN(40)
					callers.Go(func() {
						for range n {
							m := s.Next(path, 300)
							ctx, cancel := context.WithTimeout(context.Background(), patience)
							reply, err := q.Request(ctx, m.Append(nil))
							cancel()
							switch {
							case errors.Is(err, sp.ErrNotSent):
								s.Refused(m.Seq)
							case err != nil:
								s.Unknown(m.Seq)
							default:
								s.Answered(m.Seq)
								if echo, err := chaos.Parse(reply); err != nil || !echo.Answers(m) {
									r.h.Violation("the reply to %+v is %+v, %v", *m, echo, err)
								}
								continue
							}
							select {
							case <-q.Done():
							case <-time.After(patience):
								r.h.Violation("%v, and the connection does not end", err)
							}
							return
						}
					})
				}
				if rnd.IntN(2) == 0 {
					time.Sleep(time.Duration(rnd.IntN(10)) * time.Millisecond)
					_ = q.Close()
				}
				r.wait("the calls return", &callers)
				_ = q.Close()
			}
		})
	}
	r.watch(floor{handled: 2000})
	lanes.Wait()
	_ = replier.Close()
	r.h.Settle()
	r.report()
}

// Contexts and deadlines that end when the reply comes: whoever reads is interrupted again
// and again, by two at a time, and the connection lasts.
func TestContextsAtTheEdge(t *testing.T) {
	r := newRun(t, chaos.Rules{})
	replier, err := sp.ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) []byte {
		m, ok := r.h.Handled(in.Body)
		if !ok {
			return nil
		}
		return m.Reply(m.Size).Append(in.Scratch)
	}, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replier.Close() })
	q, err := sp.DialRequester(within(t, patience), replier.URL(), sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	var callers sync.WaitGroup
	for i := range 2 {
		s := r.h.Sender(fmt.Sprintf("caller %d", i))
		rnd := r.chance("caller %d", i)
		callers.Go(func() {
			micros := func(n int) time.Duration { return time.Duration(rnd.IntN(n)) * time.Microsecond }
			for !r.over() {
				n := 200
				if rnd.IntN(20) == 0 {
					n = 20 << 10 // on its way in several steps
				}
				m := s.Next(1, n)
				ctx, cancel := context.WithTimeout(context.Background(), micros(300))
				x := sp.Exchange{Body: m.Append(nil), Deadline: time.Now().Add(micros(200))}
				err := q.Do(ctx, &x)
				switch {
				case err == nil:
					s.Answered(m.Seq)
				case errors.Is(err, sp.ErrNotSent):
					s.Refused(m.Seq)
				default:
					s.Unknown(m.Seq)
				}
				if err != nil && (errors.Is(err, sp.ErrConnectionLost) || ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded)) {
					r.abort("nobody cut anything: %v", err)
				}
				cancel()
			}
		})
	}
	r.watch(floor{handled: 2000})
	r.wait("the calls return", &callers)
	_ = q.Close()
	_ = replier.Close()
	r.h.Settle()
	r.sound("the requester", q.Stats())
	r.report()
}
