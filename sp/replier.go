package sp

import (
	"context"
	"sync"
)

// Replier answers requests (SP REP). Its methods may be called concurrently.
type Replier struct{ s *server }

// ListenReplier listens on url (tcp://host:port, port 0 for any free one) and
// answers what arrives.
//
// handle runs in a goroutine of its own for each request, at most Config.InFlight
// for each connection and as many as Config.TotalBytes allows in all; beyond that
// the connection is not read (back-pressure). Its ctx ends when the connection
// breaks or the Replier is closed; but a connection that is not read breaks
// unnoticed until a handler ends, so handlers must bound themselves in time. What handle returns is the reply, which belongs to the Replier
// from then on; nil means no reply. A reply over MaxMessage is not sent, but
// counted and logged. A panic of handle is not recovered.
//
// A peer that does not read its replies is disconnected after StallTimeout and
// holds up no other peer. While its unwritten replies are over QueueBytes, no more
// of its requests are admitted; those admitted before may each add a reply, so a
// connection holds at most QueueBytes and InFlight times MaxMessage.
//
// Errors: *URLError, a bad Config, or what the system says of the address.
func ListenReplier(url string, handle func(context.Context, Inbound) []byte, cfg Config) (*Replier, error) {
	s, err := newServer(url, infoRep, maxHops*wordSize, handlerCost, cfg, func(s *server, l *link) { s.serveRequests(l, handle) })
	if err != nil {
		return nil, err
	}
	return &Replier{s}, nil
}

// serveRequests reads requests until the connection ends and waits for their
// handlers.
func (s *server) serveRequests(l *link, handle func(context.Context, Inbound) []byte) {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		frame, ok := receive(l.pp)
		if !ok {
			return
		}
		header, body, err := splitRequest(frame)
		switch {
		case err == nil && header == nil:
			s.stats.malformed.Add(1)
			s.log.warn("sp: request dropped", "peer", l.remote, "reason", "too many hops")
			continue
		case err == nil && len(body) > s.cfg.MaxMessage:
			err = oversized(uint64(len(body)), s.cfg.MaxMessage)
		}
		if err != nil {
			_ = l.tp.fail(err)
			_ = l.pp.Close()
			return
		}
		select {
		case l.slots <- struct{}{}:
		case <-s.closing:
			s.drop(l)
			continue
		}
		size := len(body)
		if !s.admit(l, size) {
			<-l.slots
			continue
		}
		handlers.Go(func() {
			defer func() {
				<-l.slots
				s.finish(l, size)
			}()
			reply := handle(l.ctx, Inbound{Body: body, Remote: l.remote})
			if reply != nil {
				s.charge(l, len(reply))
				size += len(reply)
				s.reply(l, header, reply)
			}
		})
	}
}

// reply writes a reply, waiting at most StallTimeout for a peer that does not read.
func (s *server) reply(l *link, header, reply []byte) {
	if len(reply) > s.cfg.MaxMessage {
		s.stats.tooLarge.Add(1)
		s.stats.repliesLost.Add(1)
		s.log.error("sp: reply not sent", "peer", l.remote,
			"err", &LimitError{Size: uint64(len(reply)), Limit: s.cfg.MaxMessage})
		return
	}
	if err := l.pp.SendMsg(outgoing(header, reply)); err != nil {
		s.stats.repliesLost.Add(1)
		s.log.debug("sp: reply lost", "peer", l.remote, "err", err)
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
