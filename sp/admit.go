package sp

// admit waits until a request of that size may be handled in a goroutine of its own.
// False means that it will not be, because the server is ending; it is counted. Only
// the reading goroutine calls it.
func (l *link) admit(size int) bool {
	select {
	case l.slots <- struct{}{}:
	case <-l.s.draining:
		l.drop()
		return false
	}
	if !l.credit.acquire(messageCost+size, l.s.draining, nil) {
		<-l.slots
		l.drop()
		return false
	}
	if !l.enter(handlerCost + size) {
		l.credit.release(messageCost + size)
		<-l.slots
		l.drop()
		return false
	}
	l.running.Add(1)
	return true
}

// enter takes the cost from what all links share, at once for a link of which nothing
// is being handled.
func (l *link) enter(cost int) bool {
	l.mu.Lock()
	if l.n == 0 {
		l.n++
		l.mu.Unlock()
		l.s.total.take(cost)
		return true
	}
	alone := make(chan struct{})
	l.alone = alone
	l.mu.Unlock()

	granted := l.s.total.acquire(cost, l.s.draining, alone)
	if !granted {
		if l.s.isDraining() {
			return false
		}
		l.s.total.take(cost)
	}
	l.mu.Lock()
	l.n++
	l.alone = nil
	l.mu.Unlock()
	return true
}

// left is admit for a request that is being handled already, by a goroutine that is
// left alone with it.
func (l *link) left(size int) {
	l.slots <- struct{}{} // all are free
	l.mu.Lock()
	l.n++
	l.mu.Unlock()
	l.running.Add(1)
	l.charge(size)
	l.credit.take(messageCost)
	l.s.total.take(handlerCost)
}

// charge adds to the size of a message being handled.
func (l *link) charge(size int) {
	l.credit.take(size)
	l.s.total.take(size)
}

// finish ends what admit or left began, with all that was charged.
func (l *link) finish(size int) {
	l.mu.Lock()
	if l.n--; l.n == 0 && l.alone != nil {
		close(l.alone)
		l.alone = nil
	}
	l.mu.Unlock()
	l.credit.release(messageCost + size)
	l.s.total.release(handlerCost + size)
	l.running.Add(-1)
	<-l.slots
}
