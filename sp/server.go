package sp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

const (
	messageCost = 256      // what a message in a queue weighs beside its body, bytes
	handlerCost = 16 << 10 // what one in a goroutine of its own does
)

// Inbound is a message received by a Replier or Puller. Its memory is used again when
// the handler has returned.
type Inbound struct {
	Body    []byte   // valid until the handler returns, which may change it; Take for longer
	Scratch []byte   // Replier: empty, mostly with room for a reply of 64 KiB, to append to; valid as Body is
	Remote  net.Addr // the peer's address
	Peer    string   // the name that Config.Identify gave the peer; "" without one

	taken *bool // nil: Body is in memory that others share
}

// Take returns Body for good: without a copy when it has memory of its own, as a large
// one has, and else as a copy. Body must not be used afterwards.
func (in *Inbound) Take() []byte {
	if in.taken == nil {
		return slices.Clone(in.Body)
	}
	*in.taken = true
	return in.Body
}

// server is what Replier and Puller have in common: a listener, its links, and the two
// ways to end.
type server struct {
	cfg   Config
	stats counters
	log   *logger
	total *budget
	sock  mangos.Socket
	lst   endpoint
	read  func(*link, *reading) bool // reads messages; see link.lead

	ctx       context.Context // the handlers'; ends with Close
	cancel    context.CancelCauseFunc
	drainOnce sync.Once
	draining  chan struct{} // closed by Shutdown and Close
	drains    atomic.Bool   // it is, or is about to be
	closeOnce sync.Once
	closing   chan struct{}  // closed by Close
	closes    atomic.Bool    // it is, or is about to be
	wg        sync.WaitGroup // all goroutines of links

	mu    sync.Mutex
	links map[*link]struct{}
}

// link is one connection of a server.
//
// One goroutine at a time reads it and runs the handler in between: there is no queue
// and nothing to hand over, for as long as the handler is quick. A Replier's handler
// that is not is left alone with its goroutine, while another one reads on, and while
// handlers are slow each gets a goroutine of its own.
type link struct {
	s      *server
	pp     mangos.ProtocolPipe
	tp     *pipe
	in     *reader
	out    *writer
	remote net.Addr
	ctx    context.Context // ends when the connection breaks, or with the server's
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the reader and all handlers have ended

	// Of a Puller.
	busy     atomic.Bool // the reading goroutine is handling messages
	linger   *time.Timer // nil: the peer was not yet told that we end
	lingered atomic.Bool // it had its time

	// Of a Replier.
	turn     atomic.Uint64 // odd while the reading goroutine runs the handler
	size     int           // of that request, bytes
	taking   sync.Mutex    // held while another goroutine takes over
	watching atomic.Bool
	several  atomic.Bool    // requests came together since the watch looked last
	seen     uint64         // turn, when the watch looked last
	slow     atomic.Int32   // so many quick handlers in goroutines of their own, and they run here again
	running  atomic.Int32   // handlers in goroutines of their own
	handlers sync.WaitGroup // the same
	credit   *budget        // bytes of their messages
	slots    chan struct{}  // the same as running, to wait for

	mu    sync.Mutex
	watch *time.Timer   // nil: not yet needed
	n     int           // messages in total
	alone chan struct{} // closed when n is 0 again; nil when nobody waits for it
}

// reading is the state of one reading goroutine.
type reading struct {
	turn  uint64 // of the handler that it runs; 0: none, or a Puller's
	size  int    // of that request, bytes
	taken bool   // by Inbound.Take
}

// newServer listens on url. A message may have headerRoom bytes beside its body.
func newServer(url string, info mangos.ProtocolInfo, headerRoom int, cfg Config, read func(*link, *reading) bool) (*server, error) {
	cfg, err := cfg.normalized()
	if err != nil {
		return nil, err
	}
	addr, err := parseURL(url, true, cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("sp: listen: %w", err)
	}
	s := &server{
		cfg: cfg, log: newLogger(cfg.Logger), total: newBudget(cfg.TotalBytes), read: read,
		draining: make(chan struct{}), closing: make(chan struct{}), links: make(map[*link]struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.sock = newSocket(&socketProtocol{info: info, attach: s.attach, detach: detach})
	if err := s.listen(addr, headerRoom); err != nil {
		s.cancel(ErrClosed)
		_ = s.sock.Close()
		return nil, &callError{"listen on", url, err}
	}
	return s, nil
}

func (s *server) listen(addr address, headerRoom int) error {
	set := newSettings(s.cfg, s.cfg.MaxMessage+headerRoom, &s.stats, s.log)
	set.queueBytes = s.cfg.QueueBytes / 4 // what waits for this room counts with what is being handled
	if addr.foreign {
		l, err := listenForeign(s.sock, addr, set)
		if err != nil {
			return err
		}
		s.lst = l
		return l.Listen()
	}
	ml, err := s.sock.NewListener(addr.inner(), map[string]any{optSettings: set})
	if err != nil {
		return err
	}
	v, err := ml.GetOption(optListener)
	if err != nil {
		return err
	}
	s.lst = v.(*listener)
	return ml.Listen()
}

// attach is called by mangos' core with a connection that shook hands.
func (s *server) attach(pp mangos.ProtocolPipe) error {
	tp, err := transportPipe(pp)
	if foreign, ok := s.lst.(*foreignListener); ok {
		if !foreign.arrive() {
			return ErrClosed
		}
		defer foreign.arrived()
		tp, err = foreign.adopt(pp)
	}
	if err != nil {
		return err
	}
	l := &link{
		s: s, pp: pp, tp: tp, in: tp.in, out: tp.out, remote: tp.conn.RemoteAddr(),
		credit: newBudget(s.cfg.QueueBytes), slots: make(chan struct{}, s.cfg.InFlight),
		done: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(s.ctx)
	pp.SetPrivate(l)
	s.mu.Lock()
	s.links[l] = struct{}{}
	s.mu.Unlock()
	tp.hold()
	s.wg.Go(l.lead)
	if s.isDraining() {
		l.in.interrupt()
	}
	return nil
}

// detach is called by mangos' core when the connection has ended.
func detach(pp mangos.ProtocolPipe) {
	l := pp.GetPrivate().(*link)
	_ = l.tp.fail(io.EOF) // if nobody knows better: see foreignConn
	l.cancel(fmt.Errorf("%w: %w", ErrConnectionLost, l.tp.endedBy()))
}

// lead is the reading goroutine. read returns true when there is no more to read, and
// false when another goroutine reads on, which then brings the link to its end. A
// handler may end its goroutine (runtime.Goexit); then another one reads on.
func (l *link) lead() {
	g := new(reading)
	returned, last := false, false
	defer func() {
		switch {
		case last:
			l.end()
		case returned:
		case g.turn == 0 || l.readsOn(g):
			l.out.flush() // replies to what came before it
			if g.taken {
				l.in.keep()
			}
			l.s.wg.Go(l.lead)
		default: // it was left alone with its handler
			l.finish(g.size)
			l.handlers.Done()
		}
	}()
	last = l.s.read(l, g)
	returned = true
}

// end brings the link to its end, after the last message was read.
func (l *link) end() {
	var departed sync.WaitGroup
	if l.s.isDraining() && !l.s.isClosing() && l.linger == nil {
		over := make(chan struct{})
		l.in.resume()
		departed.Go(func() {
			l.depart()
			close(over)
			l.in.interrupt()
		})
		l.dropUntil(over)
	}
	l.tp.closeWith(l.pp) // cancels ctx
	departed.Wait()
	l.handlers.Wait()
	unsent, _ := l.out.pending()
	l.s.stats.repliesLost.Add(uint64(unsent))
	l.stopWatch()
	stop(l.linger)
	l.s.mu.Lock()
	delete(l.s.links, l)
	l.s.mu.Unlock()
	l.in.close()
	l.tp.release()
	close(l.done)
}

// depart ends the connection in good order: what is being handled is answered, and
// what was written arrives. Meanwhile the connection is read: had the peer sent
// something that we have not read, closing would reset the connection and take the
// last replies with it.
func (l *link) depart() {
	l.handlers.Wait()
	if l.out.drain(l.ctx) != nil {
		return
	}
	l.tp.closeWrite()
	linger := time.NewTimer(lingerTime)
	defer linger.Stop()
	select {
	case <-linger.C:
	case <-l.ctx.Done():
	}
}

// dropUntil drops what arrives, until the connection ends or over is closed.
func (l *link) dropUntil(over <-chan struct{}) {
	for {
		_, _, err := l.in.next()
		switch {
		case err == nil:
			l.drop()
		case errors.Is(err, errInterrupted):
			l.in.resume() // that may have been the one that began all this
			if closed(over) {
				return
			}
		default:
			return
		}
	}
}

// lost ends the reading: the connection did.
func (l *link) lost(err error) {
	if errors.Is(err, errInterrupted) {
		return
	}
	_ = l.tp.fail(err)
}

// drop counts a message that was received and will not be handled.
func (l *link) drop() {
	l.s.stats.dropped.Add(1)
	l.s.log.warn("sp: message dropped, the endpoint is closing", "peer", l.remote)
}

// handling is the number of messages being handled.
func (l *link) handling() int {
	n := int(l.running.Load())
	if l.busy.Load() || l.turn.Load()%2 == 1 {
		n++
	}
	return n
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func (s *server) isDraining() bool { return s.drains.Load() }
func (s *server) isClosing() bool  { return s.closes.Load() }

func (s *server) url() string { return s.lst.Address() }

func (s *server) snapshotStats() Stats {
	st := s.stats.snapshot()
	st.Pipes, st.Pending = s.lst.counts()
	st.Handling = s.handling()
	return st
}

func (s *server) handling() (n int) {
	for _, l := range s.snapshot() {
		n += l.handling()
	}
	return n
}

func (s *server) snapshot() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	links := make([]*link, 0, len(s.links))
	for l := range s.links {
		links = append(links, l)
	}
	return links
}
