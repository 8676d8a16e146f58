package sp

import (
	"context"
	"fmt"
	"net"
	"sync"

	"go.nanomsg.org/mangos/v3"
)

const (
	messageCost = 256      // what a message in a queue weighs beside its body, bytes
	handlerCost = 16 << 10 // what one in a goroutine of its own does
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

func (s *server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

func (s *server) url() string { return s.lst.Address() }

func (s *server) snapshotStats() Stats {
	st := s.stats.snapshot()
	st.Pipes, st.Pending = s.lst.counts()
	s.mu.Lock()
	st.Handling = s.handling
	s.mu.Unlock()
	return st
}
