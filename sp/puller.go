package sp

import (
	"context"
	"errors"
	"time"
)

// Puller receives one-way messages (SP PULL). Its methods may be called
// concurrently.
type Puller struct{ s *server }

// ListenPuller listens on url (tcp://host:port, port 0 for any free one) and gives
// what arrives to handle: one message at a time and in order for each connection, on
// the goroutine that reads it, concurrently across connections. While handle is at
// work its connection is not read (back-pressure); the others are.
//
// What was received is handled even when its connection breaks meanwhile; ctx ends
// only when the Puller is closed. A connection whose peer ends it in good order is
// closed on this side after its last message was handled; see Pusher.Shutdown. A
// panic of handle is not recovered.
//
// Errors: *URLError, a bad Config, or what the system says of the address.
func ListenPuller(url string, handle func(ctx context.Context, in Inbound), cfg Config) (*Puller, error) {
	s, err := newServer(url, infoPull, 0, cfg, func(l *link, g *reading) bool { return l.readPushes(g, handle) })
	if err != nil {
		return nil, err
	}
	return &Puller{s}, nil
}

// readPushes reads messages and handles them, until the connection ends. Only then an
// orderly end of the peer is answered with ours: it may be waiting for that, to go on
// elsewhere with what must not overtake. When Shutdown interrupts it, the peer is told
// that we end, and what it has sent until it ends, too, is handled.
func (l *link) readPushes(g *reading, handle func(context.Context, Inbound)) bool {
	in := Inbound{Remote: l.remote, Peer: l.tp.peer.name}
	for {
		if !l.in.ready() {
			l.busy.Store(false)
		}
		body, own, err := l.in.next()
		if errors.Is(err, errInterrupted) {
			l.in.resume()
			if l.linger == nil {
				l.tp.closeWrite()
				l.linger = time.AfterFunc(lingerTime, func() {
					l.lingered.Store(true)
					l.in.interrupt()
				})
			}
			if !l.lingered.Load() { // looked at after resume, which may have been too late
				continue
			}
		}
		if err != nil {
			l.lost(err)
			return true
		}
		if l.s.isClosing() {
			l.drop()
			continue
		}
		if !l.busy.Load() {
			l.busy.Store(true)
		}
		in.Body, in.taken = body, nil
		if own {
			g.taken = false
			in.taken = &g.taken
		}
		handle(l.s.ctx, in)
		if own && g.taken {
			l.in.keep()
		}
	}
}

// URL returns the address as bound, tcp://ip:port.
func (p *Puller) URL() string { return p.s.url() }

// Shutdown ends gracefully: it stops accepting connections, tells the peers that it
// ends, handles what they have sent until they end their connections, too, for a
// second at most, and closes. A [Pusher] ends at once and loses nothing: what it has
// not written is in Unsent. When ctx ends first, Shutdown ends the rest like Close but
// does not wait for it, and the error says how many handlers were at work. It must not
// be called from handle.
func (p *Puller) Shutdown(ctx context.Context) error { return p.s.shutdown(ctx) }

// Close ends all connections at once, ends the handlers' context and waits for the
// handlers. Messages read and not handled are dropped and counted. It returns nil, may
// be called again, and must not be called from handle.
func (p *Puller) Close() error { return p.s.close() }

// Stats returns the counters.
func (p *Puller) Stats() Stats { return p.s.snapshotStats() }
