package sp

import (
	"context"
	"fmt"
)

// shutdown ends gracefully; see Replier.Shutdown.
func (s *server) shutdown(ctx context.Context) error {
	s.drain()
	for _, l := range s.snapshot() {
		l.in.interrupt()
	}
	for _, l := range s.snapshot() {
		select {
		case <-l.done:
		case <-s.closing:
			return s.close()
		case <-ctx.Done():
			left := s.handling()
			s.abort()
			return fmt.Errorf("sp: shutdown of %s: %d messages still being handled: %w", s.url(), left, contextError(ctx))
		}
	}
	return s.close()
}

// drain has no more connections and messages accepted.
func (s *server) drain() {
	s.drainOnce.Do(func() {
		s.drains.Store(true)
		close(s.draining)
	})
	s.lst.stop()
}

// abort ends everything, and waits for all but the links.
func (s *server) abort() {
	s.closeOnce.Do(func() {
		s.closes.Store(true)
		close(s.closing)
		s.drain()
		s.cancel(ErrClosed)
		for _, l := range s.snapshot() {
			l.tp.closeWith(l.pp)
		}
		if _, foreign := s.lst.(*foreignListener); !foreign { // see its stop
			_ = s.sock.Close()
		}
	})
}

// close ends everything and waits for the handlers.
func (s *server) close() error {
	s.abort()
	s.wg.Wait()
	return nil
}
