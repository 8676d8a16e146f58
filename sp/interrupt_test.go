package sp_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// Each request that expires interrupts whoever reads, many of them at once; none of
// that may look like a peer that stalls.
func TestRequesterManyExpireTogether(t *testing.T) {
	rep := newReplier(t, func(context.Context, sp.Inbound) []byte { return nil }, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	var wg sync.WaitGroup
	for end := time.Now().Add(time.Second); time.Now().Before(end) && !t.Failed(); wg.Wait() {
		together := time.Now().Add(5 * time.Millisecond)
		for range 16 {
			wg.Go(func() {
				x := sp.Exchange{Body: []byte("x"), Deadline: together}
				if err := req.Do(context.Background(), &x); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
	}
}

// oddContext is a context that cannot be compared.
type oddContext struct {
	context.Context
	_ []byte
}

func TestRequesterContextNeedNotBeComparable(t *testing.T) {
	rep := newReplier(t, echo, sp.Config{})
	req := newRequester(t, rep.URL(), sp.Config{})
	ctx := oddContext{Context: within(t, soon)}
	for range 100 {
		if _, err := req.Request(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}
