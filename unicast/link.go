package unicast

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

const (
	drainTimeout = 5 * time.Second // for the pushes of a retired link; a Shutdown bounds them itself
	lookInterval = time.Second     // for calls in flight to it: whether it has failed now

	// idleLooks is how often in IdleTimeout a link is looked at. Calls leave a mark
	// and do not ask for the time, which would cost more than all else.
	idleLooks = 4
)

type linkKey struct{ node, service string }

// link is one connection to one endpoint of one node, from before it is dialed
// until it is closed. One goroutine, run, owns it.
//
// A link is retired when no call may begin on it any more, because the node
// moved or left, it was idle, or it broke. It ends when nobody uses it any more,
// or at once when ctx is cancelled, whose cause then tells why.
type link struct {
	linkKey
	ep codec.Endpoint

	ctx     context.Context
	cancel  context.CancelCauseFunc
	ready   chan struct{} // closed when the dial has ended, well or not
	retired chan struct{} // closed when it is retired
	closed  chan struct{} // closed when the connection is

	slots chan struct{} // ServiceRep: a token for each request in flight

	// Set before ready is closed, constant afterwards.
	req  *sp.Requester // ServiceRep
	push *sp.Pusher    // ServicePull
	err  error         // why the dial failed
	late bool          // it failed because the link was retired meanwhile

	users gate          // calls that use it or wait for it; shut when it is retired
	inUse atomic.Bool   // a call ended since idleness was last looked for
	turn  atomic.Uint64 // the higher, the later it was used

	// Of run: the patience left with the pushes that it took over.
	since time.Time
	tries int

	// Written with pool.mu held.
	open      atomic.Bool // dialed and not yet closed
	isRetired bool
	promised  bool // its place among MaxConnections goes to another link
}

// connection is what both roles have.
type connection interface {
	Done() <-chan struct{}
	Close() error
}

// run dials when those in after are closed, and ends with the connection. The
// pool's crew starts it, and cancel ends it.
func (l *link) run(p *pool, after []<-chan struct{}) {
	conn, err := l.dial(p, after)
	if err == nil && l.push != nil {
		err = plain(l.handOver(p))
	}
	if err == nil {
		p.opened(l)
		close(l.ready)
		err = l.serve(p, conn)
	} else {
		l.err, l.late = err, l.ctx.Err() != nil
		p.notMade(l)
		p.retire(l, nil)
		close(l.ready)
	}
	if conn != nil {
		conn.Close()
	}
	if l.push != nil {
		l.leave(p, err)
	}
	p.finish(l)
	p.carryOn(l.linkKey)
}

// serve waits until the connection is to be closed, and returns why.
func (l *link) serve(p *pool, conn connection) error {
	idle := time.NewTicker(max(p.idleTimeout/idleLooks, 1))
	defer idle.Stop()
	broke, looks := false, 0
	for inUse := true; inUse; {
		select {
		case <-conn.Done():
			p.retire(l, sp.ErrConnectionLost)
			broke, inUse = true, false
		case <-l.retired:
			inUse = false
		case <-idle.C:
			looks++
			if l.inUse.Swap(false) || !l.idle() {
				looks = 0
			}
			if looks >= idleLooks {
				p.retireIdle(l)
			}
		}
	}
	if broke || l.settle(p, conn) {
		p.counters.connectionsLost.Add(1)
		return sp.ErrConnectionLost
	}
	if cause := context.Cause(l.ctx); cause != nil {
		return cause
	}
	return errMoved
}

func (l *link) dial(p *pool, after []<-chan struct{}) (connection, error) {
	for _, closed := range after {
		select {
		case <-closed:
		case <-l.ctx.Done():
			return nil, context.Cause(l.ctx)
		}
	}
	p.counters.dials.Add(1)
	var err error
	if l.service == ServiceRep {
		if l.req, err = sp.DialRequester(l.ctx, l.ep.URL, p.sp); err == nil {
			return l.req, nil
		}
	} else {
		if l.push, err = sp.DialPusher(l.ctx, l.ep.URL, p.sp); err == nil {
			return l.push, nil
		}
	}
	p.counters.dialFailures.Add(1)
	return nil, plain(err)
}

// settle waits, until ctx is cancelled, for those who still use a retired link,
// and then until the pushes that it has queued are handled over there, lest they
// be overtaken on the next link. It reports whether the connection broke meanwhile.
func (l *link) settle(p *pool, conn connection) (broke bool) {
	// Providers tells no more of a node that is gone from there.
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for inUse := true; inUse; {
		select {
		case <-l.users.empty():
			inUse = false
		case <-conn.Done():
			inUse = false
		case <-look.C:
			p.check(l)
		case <-l.ctx.Done():
			inUse = false
		}
	}
	if isDone(conn) {
		return true
	}
	if l.push == nil || l.ctx.Err() != nil {
		return false
	}
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	enough := time.AfterFunc(drainTimeout, func() {
		if !p.draining.Load() {
			cancel()
		}
	})
	defer enough.Stop()
	return l.push.Shutdown(ctx) != nil && ctx.Err() == nil
}

// idle reports whether nobody would miss it.
func (l *link) idle() bool {
	if !l.open.Load() || l.users.count() > 0 {
		return false
	}
	if l.push != nil {
		messages, _ := l.push.Queued()
		return messages == 0
	}
	return true
}

// takeSlot waits for the right to have one more request in flight. again says
// that the link has ended meanwhile.
func (l *link) takeSlot(ctx context.Context) (again bool, err error) {
	select {
	case l.slots <- struct{}{}:
	default:
		select {
		case l.slots <- struct{}{}:
		case <-l.retired:
			return true, nil
		case <-ctx.Done():
			return false, busy("requests in flight", cap(l.slots), ctx)
		}
	}
	select {
	case <-l.retired:
		<-l.slots
		return true, nil
	default:
		return false, nil
	}
}
