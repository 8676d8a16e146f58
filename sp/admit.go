package sp

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
