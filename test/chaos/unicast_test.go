package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/test/chaos"
	"github.com/parley-mesh/parley/test/harness"
	"github.com/parley-mesh/parley/unicast"
)

// mail is a node with a Messenger whose every connection leads through a proxy.
type mail struct {
	*run
	name    string
	m       *unicast.Messenger
	calls   *chaos.History  // of Send and Request
	pushes  *chaos.History  // of Push
	callers []*chaos.Sender // of calls
	pushers []*chaos.Sender // of pushes
	keep    kept
	soon    [2]int // of how many calls, and pushes, one has a context that ends soon
}

const topic = "chaos"

// newMail starts the node name. What it receives, others' histories are told.
func newMail(r *run, w *town, name string, pushes *chaos.History, callers, pushers int, cfg unicast.Config) *mail {
	n := &mail{run: r, name: name, calls: r.h, pushes: pushes, soon: [2]int{20, 200}}
	for i := range callers {
		s := n.calls.Sender(fmt.Sprintf("%s caller %d", name, i+1))
		if i%2 == 1 {
			s.MayRepeat()
		}
		n.callers = append(n.callers, s)
	}
	for i := range pushers {
		n.pushers = append(n.pushers, n.pushes.Sender(fmt.Sprintf("%s pusher %d", name, i+1)))
	}
	n.keep.r = r
	cfg.Logger = harness.NewLog(r.t, name).Logger
	var err error
	if n.m, err = unicast.Listen(w.node(name), unicast.HandlerFunc(n.handle), cfg); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = n.m.Close() })
	return n
}

var errFails = errors.New("this one fails")

// fails decides, for both ends, which messages the handler does not like.
func fails(m *chaos.Message) bool { return m.Sum%16 == 0 }

func (n *mail) handle(ctx context.Context, in unicast.Message) ([]byte, error) {
	history := n.calls
	if in.Kind.String() == "push" {
		history = n.pushes
	}
	m, ok := history.Handled(in.Body)
	if !ok {
		return nil, nil
	}
	rnd := rand.New(rand.NewPCG(n.seed, m.Seq<<8|uint64(m.Sender)))
	if history == n.pushes {
		if rnd.IntN(1000) == 0 {
			time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Millisecond))))
		}
	} else {
		switch rnd.IntN(100) {
		case 0:
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Duration(rnd.Int64N(int64(40 * time.Millisecond)))):
			}
		case 1, 2, 3, 4:
			time.Sleep(time.Duration(rnd.Int64N(int64(4 * time.Millisecond))))
		}
	}
	if again, err := chaos.Parse(in.Body); err != nil || again != *m {
		n.calls.Violation("%s: a body changed while it was handled: %v, %v", n.name, again, err)
	}
	if rnd.IntN(20) == 0 {
		n.keep.swap(in.Body, *m)
	} else {
		defer scribble(in.Body) // it is the handler's own
	}
	if fails(m) {
		return nil, errFails
	}
	return m.Reply(size(rnd)).Append(nil), nil
}

// call has a caller Send and Request until over. With Idempotent the sender may repeat.
func (n *mail) call(s *chaos.Sender, to string, over func() bool, options ...unicast.CallOption) {
	rnd := n.chance("calls of %s", s.Name())
	var again uint64
	for attempt := uint32(1); !over(); attempt++ {
		var m *chaos.Message
		if again != 0 {
			m = s.Again(again, attempt)
		} else {
			m = s.Next(attempt, size(rnd))
		}
		again = 0
		body := m.Append(nil)
		asks := rnd.IntN(2) == 0
		ctx, done := n.limit(rnd, n.soon[0])
		var reply []byte
		var err error
		if asks {
			reply, err = n.m.Request(ctx, to, topic, body, options...)
		} else {
			err = n.m.Send(ctx, to, topic, body, options...)
		}
		done()
		scribble(body) // it is not used after the return
		if err == nil {
			s.Answered(m.Seq)
			if fails(m) {
				n.calls.Violation("%s: its handler failed, and the call did not", n.name)
			}
			if !asks {
				continue
			}
			if echo, err := chaos.Parse(reply); err != nil || !echo.Answers(m) {
				n.calls.Violation("%s: the reply to %+v is %+v, %v", n.name, *m, echo, err)
			}
			continue
		}
		e, ok := errors.AsType[*unicast.Error](err)
		if !ok {
			s.Unknown(m.Seq)
			n.calls.Violation("%s: an error of no kind: %v", n.name, err)
			continue
		}
		if n.soon[0] == 0 && e.Outcome != unicast.Handled {
			n.calls.Violation("%s: nobody cut anything: %v", n.name, err)
		}
		switch e.Outcome {
		case unicast.NotDelivered:
			s.Refused(m.Seq)
			again = m.Seq
		case unicast.Handled:
			s.Answered(m.Seq)
			if !fails(m) && !errors.Is(err, context.DeadlineExceeded) {
				n.calls.Violation("%s: the handler did not fail: %v", n.name, err)
			}
		case unicast.Unknown:
			s.Unknown(m.Seq)
		}
	}
}

// push has a pusher Push until over.
func (n *mail) push(s *chaos.Sender, to string, over func() bool) {
	rnd := n.chance("pushes of %s", s.Name())
	var again uint64
	for attempt := uint32(1); !over(); attempt++ {
		var m *chaos.Message
		if again != 0 {
			m = s.Again(again, 1)
		} else {
			m = s.Next(1, size(rnd))
		}
		again = 0
		ctx, done := n.limit(rnd, n.soon[1])
		body := m.Append(nil)
		err := n.m.Push(ctx, to, topic, body)
		done()
		scribble(body)
		if err == nil {
			s.Accepted(m.Seq)
			continue
		}
		if n.soon[1] == 0 {
			n.pushes.Violation("%s: nobody cut anything: %v", n.name, err)
		}
		s.Refused(m.Seq)
		again = m.Seq
		if e, ok := errors.AsType[*unicast.Error](err); !ok || e.Outcome != unicast.NotDelivered {
			n.pushes.Violation("%s: an error of Push that is not NOT DELIVERED: %v", n.name, err)
		}
	}
}

// work has everyone send to the node to until over.
func (n *mail) work(wg *sync.WaitGroup, to string, over func() bool) {
	for i, s := range n.callers {
		var options []unicast.CallOption
		if i%2 == 1 {
			options = append(options, unicast.Idempotent)
		}
		wg.Go(func() { n.call(s, to, over, options...) })
	}
	for _, s := range n.pushers {
		wg.Go(func() { n.push(s, to, over) })
	}
}

// pushTally is that of one node's pushers.
func (n *mail) pushTally() (sum chaos.Tally) {
	for _, s := range n.pushers {
		sum = sum.Add(s.Tally())
	}
	return sum
}

// Two nodes that send each other messages over connections that break in every way,
// all the time: what a call says of its message is true, and nothing is handled twice
// that was not said to be harmless then.
func TestUnicast(t *testing.T) {
	r := newRun(t, chaos.Rules{})
	pushes := chaos.NewHistory(chaos.Rules{})
	w := newTown(func(node, service, hostport string) string {
		return r.listen(node+" "+service, chaos.Config{Target: hostport, Plan: chaos.Rough(), Buffer: socketBuffer}).Addr()
	})
	a := newMail(r, w, "a", pushes, 8, 1, unicast.Config{QueueBytes: 256 << 10})
	b := newMail(r, w, "b", pushes, 8, 1, unicast.Config{InFlight: 4, QueueBytes: 64 << 10})
	var wg sync.WaitGroup
	a.work(&wg, "b", r.over)
	b.work(&wg, "a", r.over)
	r.watch(floor{cuts: 10, resets: 5, halfCloses: 5, blackHoles: 2, splits: 50, delays: 20, stalls: 10, handled: 500})
	wg.Wait()
	for _, n := range []*mail{a, b} {
		if err := n.m.Shutdown(within(t, patience)); err != nil && !errors.Is(err, unicast.ErrPushesLost) {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	r.h.Settle()
	pushes.Settle()
	for _, n := range []*mail{a, b} {
		st := n.m.Stats()
		r.sound(n.name+": for requests", st.RepListener)
		r.sound(n.name+": for pushes", st.PullListener)
		if st.NotUnderstood != 0 || st.Foreign != 0 {
			t.Errorf("%s received what nobody has sent: %+v", n.name, st)
		}
		lost := st.PushesLost
		known := int(lost.ConnectionLost + lost.NodeGone + lost.Closed)
		missing := n.pushTally().Lost
		t.Logf("%s: %d pushes were not handled, of which it knows %d", n.name, missing, known)
		if known > missing {
			t.Errorf("%s counts %d pushes lost, and %d are missing", n.name, known, missing)
		}
	}
	if tally := pushes.Tally(); tally.Handled < 200 {
		t.Errorf("too few pushes were handled: %v", tally)
	}
	t.Logf("pushes: %v", pushes.Tally())
	pushes.Check(t)
	r.report()
}
