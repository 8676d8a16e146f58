package sp

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
)

const (
	messageCost = 256      // what a message in a queue weighs beside its body, bytes
	handlerCost = 16 << 10 // what one in a goroutine of its own does
	lingerTime  = time.Second
)

// Inbound is a message received by a Replier or Puller.
type Inbound struct {
	Body   []byte   // owned by the handler
	Remote net.Addr // the peer's address
}

// server is what Replier and Puller have in common: a listener, its links, the
// count of messages being handled, and the two ways to end.
type server struct {
	cfg   Config
	stats counters
	log   *logger
	total *budget
	sock  mangos.Socket
	lst   *listener
	serve func(*link) // reads a link until it ends, and waits for its work
	extra int         // what a message weighs in total beside its body

	ctx     context.Context // the handlers'; ends with Close
	cancel  context.CancelCauseFunc
	closing chan struct{}  // closed by Close
	once    sync.Once      // abort
	wg      sync.WaitGroup // one for each link

	mu       sync.Mutex
	draining bool
	handling int
	idle     chan struct{} // closed when draining and nothing is being handled
	links    map[*link]struct{}
}

// link is one connection of a server.
type link struct {
	pp     mangos.ProtocolPipe
	tp     *pipe
	remote net.Addr
	ctx    context.Context // ends when the connection breaks, or with the server's
	cancel context.CancelCauseFunc
	credit *budget       // bytes received (and replies) not yet handled
	slots  chan struct{} // Replier: requests being handled
	done   chan struct{} // closed when the reader and all work have ended

	mu    sync.Mutex
	n     int           // messages admitted and not finished
	alone chan struct{} // closed when n is 0 again; nil when nobody waits for it
}

// newServer listens on url. A message may have headerRoom bytes beside its body, and
// weighs extra while it is handled.
func newServer(url string, info mangos.ProtocolInfo, headerRoom, extra int, cfg Config, serve func(*server, *link)) (*server, error) {
	cfg, err := cfg.normalized()
	if err != nil {
		return nil, err
	}
	hostport, err := parseURL(url, true)
	if err != nil {
		return nil, fmt.Errorf("sp: listen: %w", err)
	}
	s := &server{
		cfg: cfg, log: newLogger(cfg.Logger), total: newBudget(cfg.TotalBytes), extra: extra,
		closing: make(chan struct{}), idle: make(chan struct{}), links: make(map[*link]struct{}),
	}
	s.serve = func(l *link) { serve(s, l) }
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.sock = newSocket(&socketProtocol{info: info, attach: s.attach, detach: detach})
	if err := s.listen(hostport, headerRoom); err != nil {
		s.cancel(ErrClosed)
		_ = s.sock.Close()
		return nil, &callError{"listen on", url, err}
	}
	return s, nil
}

func (s *server) listen(hostport string, headerRoom int) error {
	set := newSettings(s.cfg, s.cfg.MaxMessage+headerRoom, &s.stats, s.log)
	ml, err := s.sock.NewListener(scheme+"://"+hostport, map[string]any{optSettings: set})
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
	if err != nil {
		return err
	}
	l := &link{
		pp: pp, tp: tp, remote: tp.conn.RemoteAddr(),
		credit: newBudget(s.cfg.QueueBytes), slots: make(chan struct{}, s.cfg.InFlight),
		done: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(s.ctx)
	pp.SetPrivate(l)
	s.mu.Lock()
	s.links[l] = struct{}{}
	s.mu.Unlock()
	tp.hold()
	s.wg.Go(func() {
		s.serve(l)
		s.mu.Lock()
		delete(s.links, l)
		s.mu.Unlock()
		tp.release()
		close(l.done)
	})
	return nil
}

// detach is called by mangos' core when the connection has ended.
func detach(pp mangos.ProtocolPipe) {
	l := pp.GetPrivate().(*link)
	l.cancel(fmt.Errorf("%w: %w", ErrConnectionLost, l.tp.endedBy()))
}

// admit waits until a received body of that size may be handled. False means that
// it will not be, because the server is ending; it is counted.
func (s *server) admit(l *link, size int) bool {
	s.mu.Lock()
	if s.draining || s.isClosing() {
		s.mu.Unlock()
		s.drop(l)
		return false
	}
	s.handling++ // from here on a Shutdown waits for it
	s.mu.Unlock()

	if !l.credit.acquire(messageCost+size, s.closing, nil) {
		s.drop(l)
		s.handled()
		return false
	}
	if !s.enter(l, s.extra+size) {
		l.credit.release(messageCost + size)
		s.drop(l)
		s.handled()
		return false
	}
	return true
}

// enter takes the cost from what all links share, at once for a link of which
// nothing is being handled. Only the link's reader calls it.
func (s *server) enter(l *link, cost int) bool {
	l.mu.Lock()
	if l.n == 0 {
		l.n++
		l.mu.Unlock()
		s.total.take(cost)
		return true
	}
	alone := make(chan struct{})
	l.alone = alone
	l.mu.Unlock()

	granted := s.total.acquire(cost, s.closing, alone)
	if !granted {
		if s.isClosing() {
			return false
		}
		s.total.take(cost)
	}
	l.mu.Lock()
	l.n++
	l.alone = nil
	l.mu.Unlock()
	return true
}

// charge adds to the size of a message being handled.
func (s *server) charge(l *link, size int) {
	l.credit.take(size)
	s.total.take(size)
}

// finish ends what admit began, with all that was charged.
func (s *server) finish(l *link, size int) {
	l.mu.Lock()
	if l.n--; l.n == 0 && l.alone != nil {
		close(l.alone)
		l.alone = nil
	}
	l.mu.Unlock()
	l.credit.release(messageCost + size)
	s.total.release(s.extra + size)
	s.handled()
}

// drop counts a message that was received and will not be handled.
func (s *server) drop(l *link) {
	s.stats.dropped.Add(1)
	s.log.warn("sp: message dropped, the endpoint is closing", "peer", l.remote)
}

func (s *server) handled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handling--
	s.checkIdle()
}

// checkIdle tells a Shutdown that nothing is being handled any more. The caller
// holds mu.
func (s *server) checkIdle() {
	if !s.draining || s.handling > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

func (s *server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

func (s *server) url() string { return s.lst.Address() }

// shutdown ends gracefully; see Replier.Shutdown.
func (s *server) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	s.checkIdle()
	s.mu.Unlock()
	s.lst.stop()
	select {
	case <-s.idle:
	case <-s.closing:
		return s.close()
	case <-ctx.Done():
		s.mu.Lock()
		left := s.handling
		s.mu.Unlock()
		s.abort()
		return fmt.Errorf("sp: shutdown of %s: %d messages still being handled: %w", s.url(), left, contextError(ctx))
	}
	s.linger(ctx)
	return s.close()
}

// linger ends the connections so that what was written arrives: had a peer sent
// something that we have not read, a plain close would reset the connection and
// take the last replies with it.
func (s *server) linger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lingerTime)
	defer cancel()
	links := s.snapshot()
	for _, l := range links {
		l.tp.closeWrite()
	}
	for _, l := range links {
		select {
		case <-l.done: // the peer closed, too
		case <-ctx.Done():
			return
		}
	}
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

// abort ends everything, and waits for all but the links.
func (s *server) abort() {
	s.once.Do(func() {
		close(s.closing)
		s.lst.stop()
		s.cancel(ErrClosed)
		for _, l := range s.snapshot() {
			_ = l.pp.Close()
		}
		_ = s.sock.Close()
	})
}

// close ends everything and waits for the handlers.
func (s *server) close() error {
	s.abort()
	s.wg.Wait()
	return nil
}

func (s *server) snapshotStats() Stats {
	st := s.stats.snapshot()
	st.Pipes, st.Pending = s.lst.counts()
	s.mu.Lock()
	st.Handling = s.handling
	s.mu.Unlock()
	return st
}
