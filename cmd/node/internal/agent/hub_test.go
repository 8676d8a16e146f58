package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// world is a hub whose printer remembers.
type world struct {
	*Hub
	mu      sync.Mutex
	printed []string
}

func newWorld() *world {
	w := &world{}
	w.Hub = NewHub(func(_ context.Context, m control.Message) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.printed = append(w.printed, m.Kind+" "+string(m.Body))
		return nil
	})
	return w
}

func (w *world) hasPrinted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.printed)
}

// attach starts a listener that answers each message with what fn says; a nil
// answer means that it keeps the message.
func (w *world) attach(ctx context.Context, opts control.ListenOptions, fn func(control.Record) *control.Answer) (gone <-chan struct{}) {
	records := w.Listen(ctx, "n", opts)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var session string
		for rec, err := range records {
			if err != nil {
				return
			}
			if rec.Type == control.RecordAttached {
				session = rec.Session
			}
			if a := fn(rec); a != nil && rec.Type == control.RecordMessage {
				var err error
				if a.Err != "" {
					err = errors.New(a.Err)
				}
				w.answer(session, rec.Seq, a.Reply, err)
			}
		}
	}()
	return done
}

func say(s string) func(control.Record) *control.Answer {
	return func(r control.Record) *control.Answer {
		if r.Message == nil {
			return nil
		}
		return &control.Answer{Reply: []byte(s + " " + string(r.Message.Body))}
	}
}

func message(kind codec.Kind, topic, body string) unicast.Message {
	return unicast.Message{Kind: kind, From: "n2", Topic: topic, Body: []byte(body)}
}

func TestNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, kind := range []codec.Kind{codec.KindSend, codec.KindPush} {
			if _, err := w.Handle(t.Context(), message(kind, "t", "x")); err != nil {
				t.Errorf("%v: %v", kind, err)
			}
		}
		if err := w.HandleBroadcast(t.Context(), broadcast.Message{From: "n2", Body: []byte("x")}); err != nil {
			t.Error(err)
		}
		if _, err := w.Handle(t.Context(), message(codec.KindRequest, "t", "x")); !errors.Is(err, unicast.ErrNoListener) {
			t.Errorf("a request: %v", err)
		}
		if got := w.hasPrinted(); !slices.Equal(got, []string{"send x", "push x", "broadcast x"}) {
			t.Errorf("printed %q", got)
		}
	})
}

func TestPrinterFails(t *testing.T) {
	broken := errors.New("disk full")
	h := NewHub(func(context.Context, control.Message) error { return broken })
	if _, err := h.Handle(t.Context(), message(codec.KindSend, "t", "x")); !errors.Is(err, broken) {
		t.Errorf("a send that could not be printed: %v", err)
	}
}

func TestPrintingListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		heard := map[string][]string{}
		keep := func(who string) func(control.Record) *control.Answer {
			return func(r control.Record) *control.Answer {
				if r.Message == nil {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				heard[who] = append(heard[who], r.Message.Kind+" "+string(r.Message.Body))
				return &control.Answer{}
			}
		}
		w.attach(ctx, control.ListenOptions{}, keep("all"))
		w.attach(ctx, control.ListenOptions{Topics: []string{"orders.*", "x"}}, keep("orders"))
		synctest.Wait()

		for _, m := range []unicast.Message{
			message(codec.KindSend, "orders.new", "1"), message(codec.KindPush, "x", "2"), message(codec.KindSend, "orders", "3"),
		} {
			if _, err := w.Handle(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
		// A request is shown too, but printing it is no answer.
		if _, err := w.Handle(t.Context(), message(codec.KindRequest, "x", "4")); !errors.Is(err, unicast.ErrNoListener) {
			t.Errorf("a request: %v", err)
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if want := []string{"send 1", "push 2", "send 3", "request 4"}; !slices.Equal(heard["all"], want) {
			t.Errorf("the one for all heard %q", heard["all"])
		}
		if want := []string{"send 1", "push 2", "request 4"}; !slices.Equal(heard["orders"], want) {
			t.Errorf("the one for orders heard %q", heard["orders"])
		}
		if got := w.hasPrinted(); got != nil {
			t.Errorf("the agent printed %q", got)
		}
		// They are gone, so the agent prints again.
		if _, err := w.Handle(t.Context(), message(codec.KindSend, "x", "5")); err != nil {
			t.Error(err)
		}
		if got := w.hasPrinted(); !slices.Equal(got, []string{"send 5"}) {
			t.Errorf("the agent printed %q", got)
		}
	})
}

// A listener that could not print, or went away, does not count as having
// handled the message.
func TestPrintingListenerFails(t *testing.T) {
	for _, how := range []string{"says so", "goes away"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.attach(ctx, control.ListenOptions{}, func(r control.Record) *control.Answer {
				if r.Message == nil {
					return nil
				}
				if how == "goes away" {
					cancel()
					return nil
				}
				return &control.Answer{Err: "terminal closed"}
			})
			synctest.Wait()
			if _, err := w.Handle(t.Context(), message(codec.KindSend, "t", "x")); err != nil {
				t.Error(err)
			}
			if got := w.hasPrinted(); !slices.Equal(got, []string{"send x"}) {
				t.Errorf("%s: the agent printed %q", how, got)
			}
		})
	}
}

func TestAnsweringListenersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, who := range []string{"a", "b", "c"} {
			w.attach(ctx, control.ListenOptions{Answer: true, Slots: 1}, say(who))
		}
		w.attach(ctx, control.ListenOptions{Answer: true, Topics: []string{"other"}}, say("other"))
		synctest.Wait()
		count := map[string]int{}
		for i := range 30 {
			reply, err := w.Handle(t.Context(), message(codec.KindRequest, "t", fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			who, body, _ := strings.Cut(string(reply), " ")
			if body != fmt.Sprint(i) {
				t.Errorf("message %d was answered %q", i, reply)
			}
			count[who]++
		}
		if count["a"] != 10 || count["b"] != 10 || count["c"] != 10 || len(count) != 3 {
			t.Errorf("turns: %v", count)
		}
		if w.hasPrinted() != nil {
			t.Error("the agent printed what was answered")
		}
	})
}

func TestAnswerIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.attach(ctx, control.ListenOptions{Answer: true}, func(control.Record) *control.Answer { return &control.Answer{Err: "no such order"} })
		synctest.Wait()
		for _, kind := range []codec.Kind{codec.KindSend, codec.KindRequest} {
			if _, err := w.Handle(t.Context(), message(kind, "t", "x")); err == nil || err.Error() != "no such order" {
				t.Errorf("%v: %v", kind, err)
			}
		}
	})
}
