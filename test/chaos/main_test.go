package chaos_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-mesh/parley/test/chaos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing is asserted about how fast it does.
const patience = 30 * time.Second

var silent = slog.New(slog.DiscardHandler)

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// await receives from ch.
func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
		panic("not reached")
	}
}

// listen starts a Proxy that is closed with the test, and shows its last faults
// when the test has failed.
func listen(t testing.TB, cfg chaos.Config) *chaos.Proxy {
	t.Helper()
	p, err := chaos.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if t.Failed() {
			t.Logf("proxy to %s: %v", cfg.Target, p.Counts())
			for _, line := range p.Trace() {
				t.Log(line)
			}
		}
	})
	return p
}
