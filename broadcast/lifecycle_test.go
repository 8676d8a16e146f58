package broadcast

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var cause error
		var inside atomic.Bool
		a := n.add("a", HandlerFunc(func(ctx context.Context, _ Message) error {
			inside.Store(true)
			defer inside.Store(false)
			<-ctx.Done()
			cause = context.Cause(ctx)
			time.Sleep(time.Second)
			return nil
		}), Config{})
		running, queued := make(chan error, 1), make(chan error, 1)
		for i, done := range []chan error{running, queued} {
			go func() {
				_, err := a.all.accept(context.Background(), "x", broadcastFrom(t, "x", 7, uint64(i), "b"))
				done <- err
			}()
			synctest.Wait()
		}
		a.post(gossipFrom(t, "x", 7, 9, "behind them"))
		synctest.Wait()
		closed := make(chan error, 3)
		for range 3 {
			go func() {
				err := a.all.Close()
				if inside.Load() {
					t.Error("Close returned while the handler runs")
				}
				closed <- err
			}()
		}
		for range 3 {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		if err := <-running; err != nil {
			t.Errorf("running: %v", err)
		}
		if s, _ := status(<-queued); s != codec.StatusClosing {
			t.Error("queued: not closing")
		}
		if !errors.Is(cause, ErrClosed) {
			t.Errorf("the handler's context ended with %v", cause)
		}
		if s := a.all.Stats(); s.Dropped != 1 || s.Handled != 1 {
			t.Errorf("stats %+v", s)
		}
		if _, err := a.all.accept(context.Background(), "x", nil); err != errClosing {
			t.Errorf("after Close: %v", err)
		}
		if a.receive != nil || a.reserved != nil {
			t.Error("still attached")
		}
	})
}

// Another Broadcaster on the same node does not use the ids of the first.
func TestOpenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := n.add("a", nil, Config{}), n.add("b", nil, Config{})
		if err := a.all.BestEffort("t", []byte("first")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Microsecond)
		a.all.Close()
		a.open(a.got, Config{})
		if err := a.all.BestEffort("t", []byte("second")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.all.Reliable(t.Context(), "t", []byte("third")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := b.got.bodies(); !slices.Equal(got, []string{"first", "second", "third"}) {
			t.Errorf("got %q", got)
		}
	})
}

// Another Broadcaster on the same node does not hand over what the first one did,
// and still catches up on what was said since.
func TestOpenAgainSkipsOldNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := n.add("a", nil, Config{}), n.add("b", nil, Config{})
		b.exchange("a") // the first one of the node's life
		say := func(body string) {
			time.Sleep(time.Second)
			if err := a.all.BestEffort("t", []byte(body)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(time.Second)
		}
		say("once")
		b.all.Close()
		b.open(b.got, Config{})
		n.cut = func(string, string) bool { return true }
		say("while cut")
		n.cut = nil
		for range 2 {
			b.exchange("a")
			synctest.Wait()
		}
		if got := b.got.bodies(); !slices.Equal(got, []string{"once", "while cut"}) {
			t.Errorf("got %q", got)
		}
		if s := b.all.Stats(); s.Skipped != 1 || s.CaughtUp != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestOpenFails(t *testing.T) {
	for _, cfg := range []Config{{MaxMessage: -1}, {MaxMessage: MaxMaxMessage + 1}, {MaxGossip: -1}, {MaxGossip: 1025}, {Fanout: -1}} {
		f := newNetwork(t).member("a")
		if b, err := Open(f, f, f.got, cfg); err == nil {
			b.Close()
			t.Errorf("opened with %+v", cfg)
		}
	}
	if _, err := Open(nil, nil, nil, Config{}); err == nil {
		t.Error("opened without Gossip")
	}
	// A second one on the same node leaves the first alone.
	n := newNetwork(t)
	a := n.add("a", nil, Config{})
	if b, err := Open(a, a, a.got, Config{}); err == nil {
		b.Close()
		t.Error("opened twice")
	}
	if a.receive == nil || a.reserved == nil {
		t.Error("the failed Open detached the first")
	}
	// A topic that is taken: what was attached is detached again.
	c := n.member("c")
	taken := func(context.Context, string, []byte) ([]byte, error) { return nil, nil }
	if err := c.Reserve("$broadcast", taken); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if b, err := Open(c, c, c.got, Config{Logger: log}); err == nil {
		b.Close()
		t.Error("opened with the topic taken")
	}
	if c.receive != nil || c.reserved == nil {
		t.Error("the failed Open did not leave things as they were")
	}
}
