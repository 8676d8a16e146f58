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
// are queued, and then closes.
//
// When ctx ends before all of that is done, what is left is cut off as by Close,
// and the error says how much it was, beside the cause of ctx. nil says that
// nothing was left. Shutdown of a closed Messenger returns nil.
func (m *Messenger) Shutdown(ctx context.Context) error {
	m.calls.shut()
	m.handlers.shut()
	m.own.pushes.close()
	m.withdraw()

	calls := m.calls.wait(ctx)
	handlers := m.handlers.wait(ctx)
	select {
	case <-m.own.worked:
	case <-ctx.Done():
	}
	pushes, bytes := m.pool.drain(ctx)
	ownPushes, ownBytes := m.own.pushes.queued()
	// Handlers are done, and their replies may not have been written yet.
	err := m.shutdownListeners(ctx)

	m.startClose()
	select {
	case <-m.done:
	case <-ctx.Done():
	}
	return unfinished(ctx, err, calls, handlers, pushes+ownPushes, bytes+ownBytes)
}

// unfinished is the error of a Shutdown, if it needs one.
func unfinished(ctx context.Context, err error, calls, handlers, pushes, bytes int) error {
	var left []string
	if calls > 0 {
		left = append(left, fmt.Sprintf("%d calls in flight", calls))
	}
	if handlers > 0 {
		left = append(left, fmt.Sprintf("%d handlers at work", handlers))
	}
	if pushes > 0 {
		left = append(left, fmt.Sprintf("%d pushes (%d bytes) not written", pushes, bytes))
	}
	if len(left) == 0 && err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ended(ctx)
	}
	if len(left) == 0 {
		return fmt.Errorf("unicast: shutdown: %w", err)
	}
	if err == nil {
		err = ErrClosed // Close was quicker
	}
	return fmt.Errorf("unicast: shutdown: %s: %w", strings.Join(left, ", "), err)
}

func (m *Messenger) shutdownListeners(ctx context.Context) error {
	if m.rep == nil || m.pull == nil {
		return nil
	}
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = m.rep.Shutdown(ctx) })
	wg.Go(func() { errs[1] = m.pull.Shutdown(ctx) })
	wg.Wait()
	return errors.Join(errs[:]...)
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
