package unicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
)

// Shutdown ends the Messenger gracefully: it withdraws the endpoints, refuses new
// calls (ErrClosed) and new messages (ErrClosing at their senders), lets the
// calls in flight and the handlers at work finish, writes out the pushes that
// are queued, has those handled that arrived, and then closes.
//
// When ctx ends before all of that is done, what is left is cut off as by Close,
// and the error says how much it was, beside the cause of ctx; bytes are those of
// pushes with their envelopes. Pushes that were
// lost meanwhile, with their connection or their node, are an error too, which
// matches ErrPushesLost. nil says that nothing was left or lost. Shutdown of a
// closed Messenger returns nil.
func (m *Messenger) Shutdown(ctx context.Context) error {
	var left leftover
	pushes, bytes := m.counters.lostPushes()
	m.pool.draining.Store(true)
	m.calls.shut()
	m.handlers.shut()
	m.own.pushes.close()
	m.withdraw()

	left.calls = m.calls.wait(ctx)
	left.handlers = m.handlers.wait(ctx)
	select {
	case <-m.own.worked: // what it could not do is among the lost
	case <-ctx.Done():
		left.pushes, left.bytes = m.own.pushes.queued()
	}
	m.pool.drain(ctx)
	m.pool.close()
	lostPushes, lostBytes := m.counters.lostPushes()
	left.pushes += int(lostPushes - pushes)
	left.bytes += int(lostBytes - bytes)
	// Handlers are done, and their replies may not have been written yet.
	received, requests := m.shutdownListeners(ctx)
	left.received = received
	left.replies = max(0, requests-left.handlers)

	m.startClose()
	select {
	case <-m.done:
	case <-ctx.Done():
	}
	return left.err(ctx)
}

// leftover is what a Shutdown could not finish.
type leftover struct {
	calls, handlers, received, replies int
	pushes, bytes                      int // not written
}

func (l *leftover) err(ctx context.Context) error {
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{
		{l.calls, fmt.Sprintf("%d calls in flight", l.calls)},
		{l.handlers, fmt.Sprintf("%d handlers at work", l.handlers)},
		{l.received, fmt.Sprintf("%d received pushes not handled", l.received)},
		{l.replies, fmt.Sprintf("%d replies not written", l.replies)},
		{l.pushes, fmt.Sprintf("%d pushes (%d bytes) not written", l.pushes, l.bytes)},
	} {
		if p.n > 0 {
			parts = append(parts, p.text)
		}
	}
	cause := ErrPushesLost
	switch {
	case len(parts) == 0:
		return nil
	case ctx.Err() != nil:
		cause = ended(ctx)
	case l.pushes == 0:
		cause = ErrClosed // Close was quicker
	}
	return fmt.Errorf("unicast: shutdown: %s: %w", strings.Join(parts, ", "), cause)
}

// shutdownListeners ends the endpoints within ctx, and returns how many pushes
// and requests they had received by then and not finished.
func (m *Messenger) shutdownListeners(ctx context.Context) (pushes, requests int) {
	if m.rep == nil || m.pull == nil {
		return 0, 0
	}
	cut, cancel := context.WithCancel(context.WithoutCancel(ctx))
	finished := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { m.rep.Shutdown(cut) })
	wg.Go(func() { m.pull.Shutdown(cut) })
	go func() {
		wg.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		// Before cut: then they drop what is left.
		pushes, requests = m.pull.Stats().Handling, m.rep.Stats().Handling
	}
	cancel()
	<-finished
	return pushes, requests
}

// Close ends the Messenger at once: it withdraws the endpoints, closes all
// connections and cancels the contexts of handlers. Calls in flight return
// ErrClosed with their true Outcome; pushes not yet written are lost, counted and
// logged. Close waits until handlers and goroutines have ended; it may be called
// more than once, and always returns nil.
func (m *Messenger) Close() error {
	m.startClose()
	<-m.done
	return nil
}

// startClose closes in a goroutine of its own, so that Shutdown need not wait
// for handlers that do not heed their context. It ends with done.
func (m *Messenger) startClose() {
	m.closing.Do(func() {
		m.calls.shut()
		m.handlers.shut()
		m.own.pushes.close()
		m.cancel(ErrClosed)
		m.crew.dismiss()
		go func() {
			defer close(m.done)
			var wg sync.WaitGroup
			wg.Go(m.withdraw)
			wg.Go(m.pool.close)
			if m.rep != nil {
				wg.Go(func() { m.rep.Close() })
			}
			if m.pull != nil {
				wg.Go(func() { m.pull.Close() })
			}
			wg.Wait()
			m.crew.wait()
		}()
	})
}

// withdraw takes the endpoints out of the Directory.
func (m *Messenger) withdraw() {
	m.withdrawn.Do(func() {
		for _, service := range m.advertised {
			if err := m.dir.Withdraw(service); err != nil && !errors.Is(err, net.ErrClosed) {
				m.log.Warn("endpoint was not withdrawn", slog.String("service", service), slog.Any("err", err))
			}
		}
	})
}
