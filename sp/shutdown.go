package sp

import (
	"context"
	"fmt"
	"time"
)

// lingerTime is how long a Shutdown waits for the peers to close, too.
const lingerTime = time.Second

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
