package sp

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Pusher sends one-way messages to one peer over one connection (SP PUSH). Its
// methods may be called concurrently; messages of one caller keep their order.
//
// It does not reconnect: when the connection is lost, Done is closed and every call
// fails; the owner closes it, dials a new one and sends there what Unsent returns.
type Pusher struct {
	c *client

	mu        sync.Mutex
	told      bool // the loss was logged
	unsent    [][]byte
	lost      uint64
	lostBytes uint64
}

// DialPusher connects and shakes hands within ctx, and within 10 s and
// Config.HandshakeTimeout. Errors are those of DialRequester.
func DialPusher(ctx context.Context, url string, cfg Config) (*Pusher, error) {
	c, err := dial(ctx, url, infoPush, 0, cfg)
	if err != nil {
		return nil, err
	}
	p := &Pusher{c: c}
	c.wg.Go(p.read)
	return p, nil
}

// Send queues one message, the parts one after the other, which are the caller's again
// when it returns. While Config.QueueBytes are queued, Send waits within ctx. A part of
// more than 16 KiB is not copied, as long as the peer takes it within milliseconds.
//
// nil means queued: Drain tells when it was written, Lost and Unsent when it never was.
// An error means not queued; it matches ErrNotSent, together with the cause:
// ErrTooLarge, ctx's, ErrClosed, or what ended the connection.
func (p *Pusher) Send(ctx context.Context, parts ...[]byte) error {
	if err := p.send(ctx, parts...); err != nil {
		return &callError{"push to", p.c.url, err}
	}
	return nil
}

func (p *Pusher) send(ctx context.Context, parts ...[]byte) error {
	size := 0
	for _, b := range parts {
		size += len(b)
	}
	if err := p.c.checkSize(size); err != nil {
		return err
	}
	if p.c.ended() || ctx.Err() != nil {
		return p.c.unsent(ctx)
	}
	_, err := p.c.tp.out.send(ctx, time.Time{}, behind, nil, parts...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errShut):
		return notSent(ErrClosed)
	case ctx.Err() == nil && !p.c.ended():
		return notSent(p.c.tp.fail(err))
	}
	return p.c.unsent(ctx)
}

// read is the goroutine that notices the connection's end, and then settles what was
// not written. A PULL peer has nothing to say; what it says is ignored.
func (p *Pusher) read() {
	for {
		if _, _, err := p.c.tp.in.next(); err != nil {
			_ = p.c.tp.fail(err)
			break
		}
	}
	p.c.tp.closeWith(p.c.pp) // waits for the writer
	p.c.tp.in.close()
	p.settle()
}

// settle counts what was not written as lost. The connection must have ended.
func (p *Pusher) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsent = p.c.tp.out.unsent()
	p.lost = uint64(len(p.unsent))
	for _, b := range p.unsent {
		p.lostBytes += uint64(len(b))
	}
}

// Unsent returns the messages that were accepted and not wholly written when the
// connection ended, in their order: the peer has not seen them and will not. They do
// not count as Lost any more. It waits for Done, and returns each message once.
func (p *Pusher) Unsent() [][]byte {
	<-p.c.done
	p.c.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	unsent := p.unsent
	p.unsent, p.lost, p.lostBytes = nil, 0, 0
	return unsent
}

// Drain waits until everything accepted before the call was written to the
// connection. Otherwise the error is a *DrainError, which says how much was not and
// why. A Pusher that is closed after a successful Drain loses nothing unless the
// connection or the peer fails.
func (p *Pusher) Drain(ctx context.Context) error {
	err := p.c.tp.out.drain(ctx)
	if err == nil {
		return nil
	}
	messages, bytes := p.Queued()
	if ctx.Err() == nil || p.c.ended() {
		err = p.c.tp.endedBy()
		p.mu.Lock()
		messages, bytes = max(messages, int(p.lost)), max(bytes, int(p.lostBytes))
		p.mu.Unlock()
	}
	return &DrainError{URL: p.c.url, Messages: uint64(messages), Bytes: uint64(bytes), Err: err}
}

// Queued is what was accepted and is not yet written: messages, and bytes of their
// bodies.
func (p *Pusher) Queued() (messages, bytes int) { return p.c.tp.out.pending() }

// Lost is what was accepted and never wholly written, because the connection broke or
// Close came first: messages, and bytes of their bodies. What was written and did not
// arrive is not known here and not in it.
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
	p.c.tp.out.shut()
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
// use Shutdown, or Unsent. It returns nil and may be called again.
func (p *Pusher) Close() error {
	p.c.close()
	p.mu.Lock()
	messages, bytes, told := p.lost, p.lostBytes, p.told
	p.told = true
	p.mu.Unlock()
	if messages > 0 && !told {
		p.c.log.warn("sp: messages lost, they were queued and not written",
			"messages", messages, "bytes", bytes, "err", p.c.tp.endedBy())
	}
	return nil
}

// Stats returns the counters.
func (p *Pusher) Stats() Stats { return p.c.snapshotStats() }
