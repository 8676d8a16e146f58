package sp

import (
	"context"
	"slices"
	"time"
)

// Replier answers requests (SP REP). Its methods may be called concurrently.
type Replier struct{ s *server }

// ListenReplier listens on url (tcp://host:port, port 0 for any free one) and
// answers what arrives.
//
// handle is called concurrently. While it is quick, it runs on the goroutine that reads
// the connection, one request after the other. Once it has taken some milliseconds (two
// when several requests came together, twenty at most) another goroutine reads on, and
// while handlers are slow each has a goroutine of its own: at most Config.InFlight of them for each connection, and as
// many as Config.TotalBytes allows in all; beyond that the connection is not read
// (back-pressure).
//
// Its ctx ends when the connection breaks or the Replier is closed; but a connection
// that is not read breaks unnoticed until a handler ends, so handlers must bound
// themselves in time. What handle returns is the reply, which must not be changed
// afterwards, unless it is in.Body or in.Scratch or part of them; nil means no reply.
// A reply over MaxMessage is not sent, but counted and logged. A panic of handle is
// not recovered.
//
// A peer that does not read its replies is disconnected after StallTimeout and
// holds up no other peer. While a quarter of QueueBytes are replies that it has not
// read, the handlers that have more wait with them, which count to QueueBytes, and over
// that no more of its requests are admitted. Those admitted before may each add a reply,
// so a connection holds at most five quarters of QueueBytes and InFlight times MaxMessage.
//
// Errors: *URLError, a bad Config, or what the system says of the address.
func ListenReplier(url string, handle func(context.Context, Inbound) []byte, cfg Config) (*Replier, error) {
	s, err := newServer(url, infoRep, maxHops*wordSize, cfg, func(l *link, g *reading) bool { return l.readRequests(g, handle) })
	if err != nil {
		return nil, err
	}
	return &Replier{s}, nil
}

// Handlers that take longer than one to two periods of the watch do not run on the
// reading goroutine; quickHandler and slowHandlers say when they do again. The short
// period is for peers that have several requests outstanding, which wait meanwhile.
// It would cost others: with a timer that is due soon, a system call that waits for
// the network takes microseconds longer.
const (
	watchPeriod  = time.Millisecond
	lonePeriod   = 10 * time.Millisecond
	quickHandler = 100 * time.Microsecond
	slowHandlers = 64
)

type handler = func(context.Context, Inbound) []byte

// readRequests reads requests and has them handled, until the connection ends or
// Shutdown interrupts it. False means that another goroutine reads on.
func (l *link) readRequests(g *reading, handle handler) bool {
	for {
		if l.s.isDraining() {
			l.dropReady()
			return true
		}
		if !l.in.ready() {
			l.out.flush() // the replies to all requests that came together leave together
		}
		frame, own, err := l.in.next()
		if err != nil {
			l.out.flush()
			l.lost(err)
			return true
		}
		header, body, err := splitRequest(frame)
		switch {
		case err == nil && header == nil:
			l.s.stats.malformed.Add(1)
			l.s.log.warn("sp: request dropped", "peer", l.remote, "reason", "too many hops")
			continue
		case err == nil && len(body) > l.s.cfg.MaxMessage:
			err = oversized(uint64(len(body)), l.s.cfg.MaxMessage)
		}
		switch {
		case err != nil:
			l.out.flush()
			l.lost(err)
			return true
		case l.slow.Load() > 0 || l.running.Load() > 0:
			l.out.flush() // we may have to wait now
			l.handleApart(handle, frame, len(header), own)
		case !l.handleHere(g, handle, header, body, own):
			return false
		}
	}
}

// dropReady drops what was read and not handled.
func (l *link) dropReady() {
	for l.in.ready() {
		if _, _, err := l.in.next(); err != nil {
			return
		}
		l.drop()
	}
	l.out.flush()
}

// handleHere runs the handler on the reading goroutine, and leaves the reply for later.
// False means that the handler took too long and that another goroutine reads on.
func (l *link) handleHere(g *reading, handle handler, header, body []byte, own bool) bool {
	if l.in.scratch == nil {
		l.in.scratch = getChunk()
	}
	lent, scratch := l.in.chunk, l.in.scratch
	if !l.several.Load() && l.in.ready() {
		l.several.Store(true)
	}
	l.size, g.size = len(body), len(body)
	g.turn = l.turn.Add(1) // from here on another goroutine may take over the reader
	if !l.watching.Load() {
		l.startWatch()
	}
	in := Inbound{Body: body, Scratch: scratch[:0], Remote: l.remote, Peer: l.tp.peer.name}
	if own {
		g.taken = false
		in.taken = &g.taken
	}
	reply := handle(l.ctx, in)
	if !l.readsOn(g) {
		if reply != nil {
			l.charge(len(reply))
			l.reply(together, header, reply)
		}
		l.finish(len(body) + len(reply))
		l.handlers.Done()
		if lent != nil {
			putChunk(lent)
		}
		putChunk(scratch)
		return false
	}
	if reply != nil {
		l.reply(later, header, reply)
	}
	if own && g.taken {
		l.in.keep()
	}
	return true
}

// readsOn ends a turn. It reports whether the goroutine still is the one that reads. If
// not, the other has taken over when it returns: what this one lets go of now must not
// be what takeOver is at yet.
func (l *link) readsOn(g *reading) bool {
	turn := g.turn
	g.turn = 0
	if l.turn.CompareAndSwap(turn, turn+1) {
		return true
	}
	l.taking.Lock()
	defer l.taking.Unlock()
	return false
}

// startWatch has the reading goroutine looked after.
func (l *link) startWatch() {
	if l.watching.CompareAndSwap(false, true) {
		l.lookSoon()
	}
}

func (l *link) lookSoon() {
	period := lonePeriod
	if l.several.Swap(false) {
		period = watchPeriod
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch == nil {
		l.watch = time.AfterFunc(period, l.look)
	} else {
		l.watch.Reset(period)
	}
}

func (l *link) stopWatch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch != nil {
		l.watch.Stop()
	}
}

// look is the watch: it runs from time to time while there are requests. When it finds
// the reading goroutine in the same handler as before, it has another one read on.
func (l *link) look() {
	turn := l.turn.Load()
	same := turn == l.seen
	l.seen = turn
	switch {
	case turn%2 == 0 && same:
		l.watching.Store(false)
		if l.turn.Load() == turn || !l.watching.CompareAndSwap(false, true) {
			return
		}
	case same:
		l.takeOver(turn)
	}
	l.lookSoon()
}

// takeOver leaves the reading goroutine alone with the handler of that turn, if it
// still is at it, and has another one read on. From the moment when it wins the turn
// it has the reader to itself, until it lets go of taking.
func (l *link) takeOver(turn uint64) {
	l.taking.Lock()
	if !l.turn.CompareAndSwap(turn, turn+1) {
		l.taking.Unlock()
		return
	}
	l.slow.Store(slowHandlers)
	l.handlers.Add(1)
	l.left(l.size)
	l.in.split()
	l.taking.Unlock()
	l.out.flush() // replies that are finished
	l.s.wg.Go(l.lead)
}

// handleApart has a request handled in a goroutine of its own, as soon as that may be.
func (l *link) handleApart(handle handler, frame []byte, header int, own bool) {
	size := len(frame) - header
	if own {
		size = max(size, l.in.weight()) // of which a part may be unused
	}
	if !l.admit(size) {
		return
	}
	if own {
		l.in.keep()
	} else {
		frame = slices.Clone(frame)
	}
	l.handlers.Go(func() {
		charged := size
		defer func() { l.finish(charged) }()
		begun := time.Now()
		taken := false
		reply := handle(l.ctx, Inbound{Body: frame[header:], Remote: l.remote, Peer: l.tp.peer.name, taken: &taken})
		if time.Since(begun) > quickHandler {
			l.slow.Store(slowHandlers)
		} else {
			l.slow.Add(-1)
		}
		if reply != nil {
			l.charge(len(reply))
			charged += len(reply)
			l.reply(together, frame[:header], reply)
		}
	})
}

// reply sends a reply. It waits while the queue is full, at most StallTimeout for a
// peer that does not read.
func (l *link) reply(u urgency, header, reply []byte) {
	if len(reply) > l.s.cfg.MaxMessage {
		l.s.stats.tooLarge.Add(1)
		l.s.stats.repliesLost.Add(1)
		l.s.log.error("sp: reply not sent", "peer", l.remote,
			"err", &LimitError{Size: uint64(len(reply)), Limit: l.s.cfg.MaxMessage})
		return
	}
	if _, err := l.out.send(l.ctx, time.Time{}, u, header, reply); err != nil {
		l.s.stats.repliesLost.Add(1)
		l.s.log.debug("sp: reply lost", "peer", l.remote, "err", err)
	}
}

// URL returns the address as bound, tcp://ip:port.
func (r *Replier) URL() string { return r.s.url() }

// Shutdown ends gracefully: it stops accepting connections and requests, waits for
// the handlers and until their replies are written, and closes. Requests that
// arrive meanwhile are dropped and counted. When ctx ends first, Shutdown ends the
// rest like Close but does not wait for it, and the error says how many requests
// were still being handled. It must not be called from handle.
func (r *Replier) Shutdown(ctx context.Context) error { return r.s.shutdown(ctx) }

// Close ends all connections at once, ends the handlers' contexts and waits for the
// handlers. Replies not yet written are lost and counted. It returns nil, may be
// called again, and must not be called from handle.
func (r *Replier) Close() error { return r.s.close() }

// Stats returns the counters.
func (r *Replier) Stats() Stats { return r.s.snapshotStats() }
