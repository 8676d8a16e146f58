package unicast

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestQueuePutWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue{maxMessages: 100, maxBytes: 10}
		body := func(n int) Message { return Message{Body: make([]byte, n)} }
		if err := q.put(t.Context(), body(8)); err != nil {
			t.Fatal(err)
		}
		waiting := make(chan error, 1)
		go func() { waiting <- q.put(t.Context(), body(5)) }()
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Fatalf("put went over the bound: %v", err)
		default:
		}
		if m, err := q.get(t.Context()); len(m.Body) != 8 || err != nil {
			t.Fatalf("get: %d bytes, %v", len(m.Body), err)
		}
		if err := <-waiting; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := q.put(ctx, body(6)); !errors.Is(err, context.Canceled) {
			t.Errorf("put without room: %v, want that of its context", err)
		}
		go func() { waiting <- q.put(t.Context(), body(6)) }()
		synctest.Wait()
		q.close()
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("put unblocked by close: %v, want ErrClosed", err)
		}
		if messages, bytes := q.queued(); messages != 1 || bytes != 5 {
			t.Errorf("%d messages, %d bytes are queued; want 1 and 5", messages, bytes)
		}
	})
}
