package sp

import (
	"context"
	"errors"
)

// pullAhead is how many messages of a connection a Puller reads ahead of its
// handler, within QueueBytes.
const pullAhead = 256

// Puller receives one-way messages (SP PULL). Its methods may be called
// concurrently.
type Puller struct{ s *server }

// ListenPuller listens on url (tcp://host:port, port 0 for any free one) and gives
// what arrives to handle: one message at a time and in order for each connection,
// concurrently across connections. While a connection has 256 messages or
// Config.QueueBytes received and not handled, it is not read (back-pressure); the
// others are.
//
// What was received is handled even when its connection breaks meanwhile; ctx ends
// only when the Puller is closed. A connection whose peer ends it in good order is
// closed on this side after its last message was handled; see Pusher.Shutdown. A
// panic of handle is not recovered.
//
// Errors: *URLError, a bad Config, or what the system says of the address.
func ListenPuller(url string, handle func(context.Context, Inbound), cfg Config) (*Puller, error) {
	s, err := newServer(url, infoPull, 0, messageCost, cfg, func(s *server, l *link) { s.servePushes(l, handle) })
	if err != nil {
		return nil, err
	}
	return &Puller{s}, nil
}

// servePushes reads messages until the connection ends, and waits until all are
// handled. Only then it answers an orderly end with ours: the peer may be waiting
// for it, to go on elsewhere with what must not overtake.
func (s *server) servePushes(l *link, handle func(context.Context, Inbound)) {
	queue := make(chan []byte, pullAhead)
	done := make(chan struct{})
	go s.handlePushes(l, queue, done, handle)
	body, err := l.tp.next() // mangos' core would close at the end
	for ; err == nil; body, err = l.tp.next() {
		if s.admit(l, len(body)) {
			queue <- body // handlePush is quick once the server is closing
		}
	}
	if !errors.Is(err, errHungUp) {
		_ = l.pp.Close()
	}
	close(queue)
	<-done
	_ = l.pp.Close()
}

// handlePushes is the goroutine that handles the messages of a connection. When
// handle ends it (runtime.Goexit), another goes on.
func (s *server) handlePushes(l *link, queue <-chan []byte, done chan<- struct{}, handle func(context.Context, Inbound)) {
	finished := false
	defer func() {
		if finished {
			close(done)
		} else {
			go s.handlePushes(l, queue, done, handle)
		}
	}()
	for body := range queue {
		s.handlePush(l, body, handle)
	}
	finished = true
}

func (s *server) handlePush(l *link, body []byte, handle func(context.Context, Inbound)) {
	defer s.finish(l, len(body))
	if s.isClosing() {
		s.drop(l)
		return
	}
	handle(s.ctx, Inbound{Body: body, Remote: l.remote})
}

// URL returns the address as bound, tcp://ip:port.
func (p *Puller) URL() string { return p.s.url() }

// Shutdown ends gracefully: it stops accepting connections and messages, waits
// until what was received is handled, and closes. Messages that arrive meanwhile
// are dropped and counted. When ctx ends first, Shutdown ends the rest like Close
// but does not wait for it, and the error says how many messages were left. It must
// not be called from handle.
func (p *Puller) Shutdown(ctx context.Context) error { return p.s.shutdown(ctx) }

// Close ends all connections at once, ends the handlers' context and waits for the
// handlers. Messages received and not handled are dropped and counted. It returns
// nil, may be called again, and must not be called from handle.
func (p *Puller) Close() error { return p.s.close() }

// Stats returns the counters.
func (p *Puller) Stats() Stats { return p.s.snapshotStats() }
