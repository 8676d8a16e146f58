package sp

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.nanomsg.org/mangos/v3"
)

// Pusher sends one-way messages to one peer over one connection (SP PUSH). Its
// methods may be called concurrently; messages of one caller keep their order.
//
// It does not reconnect: when the connection is lost, Done is closed, what was
// queued is lost and counted, and every call fails; the owner closes it and dials a
// new one.
type Pusher struct {
	c      *client
	credit *budget
	wake   chan struct{} // holds one: the queue is not empty

	mu        sync.Mutex
	ended     bool // nothing is accepted any more
	queue     []pushed
	bytes     int    // in queue
	accepted  uint64 // messages, ever
	settled   uint64 // written or lost
	lost      uint64
	lostBytes uint64
	drainers  []*drainer // in the order of their targets
}

// pushed is an accepted message; it stays in the queue until it is written.
type pushed struct {
	m    *mangos.Message
	size int
}

// drainer waits until the first target messages are settled.
type drainer struct {
	target uint64
	done   chan struct{}
}

// DialPusher connects and shakes hands within ctx, and within 10 s and
// Config.HandshakeTimeout. Errors are those of DialRequester.
func DialPusher(ctx context.Context, url string, cfg Config) (*Pusher, error) {
	c, err := dial(ctx, url, infoPush, 0, cfg)
	if err != nil {
		return nil, err
	}
	p := &Pusher{c: c, credit: newBudget(c.cfg.QueueBytes), wake: make(chan struct{}, 1)}
	c.wg.Go(p.read)
	c.wg.Go(p.write)
	return p, nil
}

// Send queues body, which must not be changed from the call on unless the call
// fails: it is not copied. While Config.QueueBytes are queued, Send waits within ctx.
// nil means queued: Drain tells when it was written, Lost when it never will be. An
// error means not queued; it matches ErrNotSent, together with
// the cause: ErrTooLarge, ctx's, ErrClosed, or what ended the connection.
func (p *Pusher) Send(ctx context.Context, body []byte) error {
	if err := p.send(ctx, body); err != nil {
		return &callError{"push to", p.c.url, err}
	}
	return nil
}

func (p *Pusher) send(ctx context.Context, body []byte) error {
	if err := p.c.checkSize(body); err != nil {
		return err
	}
	if p.c.ended() || ctx.Err() != nil {
		return p.c.unsent(ctx)
	}
	cost := messageCost + len(body)
	if !p.credit.acquire(cost, ctx.Done(), p.c.done) {
		return p.c.unsent(ctx)
	}
	if !p.enqueue(pushed{outgoing(nil, body), len(body)}) {
		p.credit.release(cost)
		return p.c.unsent(ctx)
	}
	return nil
}

func (p *Pusher) enqueue(e pushed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.queue = append(p.queue, e)
	p.bytes += e.size
	p.accepted++
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true
}

// write is the goroutine that writes the queue. It ends with the connection, and
// then gives up what is left.
func (p *Pusher) write() {
	defer p.giveUp()
	for {
		select {
		case <-p.wake:
		case <-p.c.done:
			return
		}
		for {
			e, ok := p.front()
			if !ok {
				break
			}
			if p.c.pp.SendMsg(e.m) != nil {
				return
			}
			p.written(e)
		}
	}
}

func (p *Pusher) front() (e pushed, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue = nil // it may have been long
		return pushed{}, false
	}
	return p.queue[0], true
}

func (p *Pusher) written(e pushed) {
	p.mu.Lock()
	p.queue[0] = pushed{}
	p.queue = p.queue[1:]
	p.bytes -= e.size
	p.settle(1)
	p.mu.Unlock()
	p.credit.release(messageCost + e.size)
}

// settle counts messages whose fate is known and wakes who waited for that. The
// caller holds mu.
func (p *Pusher) settle(n int) {
	p.settled += uint64(n)
	for len(p.drainers) > 0 && p.drainers[0].target <= p.settled {
		close(p.drainers[0].done)
		p.drainers = slices.Delete(p.drainers, 0, 1)
	}
}

// giveUp counts what is in the queue as lost: the connection has ended.
func (p *Pusher) giveUp() {
	<-p.c.done
	p.mu.Lock()
	n, bytes := len(p.queue), p.bytes
	p.ended = true
	p.queue, p.bytes = nil, 0
	p.lost += uint64(n)
	p.lostBytes += uint64(bytes)
	p.settle(n)
	p.mu.Unlock()
	if n > 0 {
		p.c.log.warn("sp: messages lost, they were queued and not written", "messages", n, "bytes", bytes, "err", p.c.tp.endedBy())
	}
}

// read is the goroutine that notices the connection's end. A PULL peer has nothing
// to say; what it says is ignored.
func (p *Pusher) read() {
	for {
		if _, ok := receive(p.c.pp); !ok {
			return
		}
	}
}

// Drain waits until everything accepted before the call was written to the
// connection. Otherwise the error is a *DrainError, which says how much was not and
// why. A Pusher that is closed after a successful Drain loses nothing unless the
// connection or the peer fails.
func (p *Pusher) Drain(ctx context.Context) error {
	p.mu.Lock()
	d := &drainer{target: p.accepted, done: make(chan struct{})}
	if p.settled >= d.target {
		close(d.done)
	} else {
		p.drainers = append(p.drainers, d)
	}
	p.mu.Unlock()

	select {
	case <-d.done:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.drainers, d); i >= 0 {
		p.drainers = slices.Delete(p.drainers, i, i+1)
	}
	switch {
	case p.settled < d.target:
		e := &DrainError{URL: p.c.url, Messages: d.target - p.settled, Err: contextError(ctx)}
		for _, q := range p.queue[:e.Messages] {
			e.Bytes += uint64(q.size)
		}
		return e
	case p.lost > 0:
		return &DrainError{URL: p.c.url, Messages: p.lost, Bytes: p.lostBytes, Err: p.c.tp.endedBy()}
	}
	return nil
}

// Queued is what was accepted and is not yet written: messages, and bytes of their
// bodies.
func (p *Pusher) Queued() (messages, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue), p.bytes
}

// Lost is what was accepted and never written, because the connection broke or
// Close came first: messages, and bytes of their bodies. What was written and did
// not arrive is not known here and not in it.
func (p *Pusher) Lost() (messages, bytes uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost, p.lostBytes
}

// Done is closed when the connection is lost, also when nothing is queued, or
// closed.
func (p *Pusher) Done() <-chan struct{} { return p.c.done }

// Shutdown ends gracefully: it accepts no more, writes what is queued, tells the
// peer that this was all, waits for the peer to end the connection too, and closes.
// A Puller does that after it has handled the last message; other SP peers do it
// when they have read it, or sooner. A peer that is closing does it as well, so nil
// is not an acknowledgement, but nothing that is sent to the peer from now on will
// be handled before what was sent here.
//
// When ctx ends first, Shutdown closes at once. The error is a *DrainError when
// something was not written, and otherwise matches ctx's cause, or what ended the
// connection, such as ErrClosed; what was written may be handled yet.
func (p *Pusher) Shutdown(ctx context.Context) error {
	defer p.c.close()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	if err := p.Drain(ctx); err != nil {
		return err
	}
	p.c.tp.closeWrite()
	var err error
	select {
	case <-p.c.done:
		if err = p.c.tp.endedBy(); errors.Is(err, errHungUp) {
			return nil
		}
	case <-ctx.Done():
		err = contextError(ctx)
	}
	return &callError{"shutdown of push to", p.c.url, err}
}

// Close ends the connection; what is queued is lost and counted, so Drain first, or
// use Shutdown. It returns nil and may be called again.
func (p *Pusher) Close() error {
	p.c.close()
	return nil
}

// Stats returns the counters.
func (p *Pusher) Stats() Stats { return p.c.snapshotStats() }
