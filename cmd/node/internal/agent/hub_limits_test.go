package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// A listener gets no more than it can do at a time; the rest waits.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		var given []control.Record
		session := ""
		w.attach(ctx, control.ListenOptions{Answer: true, Slots: 2}, func(r control.Record) *control.Answer {
			mu.Lock()
			defer mu.Unlock()
			if r.Type == control.RecordAttached {
				session = r.Session
			}
			if r.Type == control.RecordMessage {
				given = append(given, r)
			}
			return nil
		})
		synctest.Wait()
		results := make(chan error, 5)
		for i := range 5 {
			go func() {
				_, err := w.Handle(t.Context(), message(codec.KindRequest, "t", fmt.Sprint(i)))
				results <- err
			}()
		}
		for done := 0; done < 5; done++ {
			synctest.Wait()
			mu.Lock()
			if want := min(2+done, 5); len(given) != want {
				t.Fatalf("after %d answers it was given %d messages, want %d", done, len(given), want)
			}
			seq := given[done].Seq
			mu.Unlock()
			if !w.answer(session, seq, nil, nil) {
				t.Fatalf("answer %d was for nobody", done)
			}
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

// The one that waits for a free listener gives up when its sender does.
func TestWaitEndsWithTheSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		var types []string
		w.attach(ctx, control.ListenOptions{Answer: true, Slots: 1}, func(r control.Record) *control.Answer {
			mu.Lock()
			defer mu.Unlock()
			types = append(types, r.Type)
			return nil // never
		})
		synctest.Wait()
		for range 2 { // the first is given to it, the second waits
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := w.Handle(ctx, message(codec.KindRequest, "t", "x")); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			}()
		}
		time.Sleep(2 * time.Second) // of the bubble
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{control.RecordAttached, control.RecordMessage, control.RecordCancel}; !slices.Equal(types, want) {
			t.Errorf("the listener was told %q, want %q", types, want)
		}
	})
}

// What a listener that goes away was not given yet goes to another; what it was
// given fails, and says that it may have been done.
func TestListenerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, leave := context.WithCancel(t.Context())
		w.attach(ctx, control.ListenOptions{Answer: true, Slots: 1}, func(control.Record) *control.Answer { return nil })
		synctest.Wait()

		type result struct {
			reply string
			err   error
		}
		first, second := make(chan result, 1), make(chan result, 1)
		ask := func(body string, to chan result) {
			reply, err := w.Handle(t.Context(), message(codec.KindRequest, "t", body))
			to <- result{string(reply), err}
		}
		go ask("1", first)
		synctest.Wait()
		go ask("2", second)
		synctest.Wait()

		ctx2, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.attach(ctx2, control.ListenOptions{Answer: true, Topics: []string{"t"}}, say("b"))
		if r := <-second; r.err != nil || r.reply != "b 2" {
			t.Errorf("the one that waited: %+v", r)
		}
		leave()
		if r := <-first; !errors.Is(r.err, errListenerGone) {
			t.Errorf("the one that was given away: %+v", r)
		}
	})
}

func TestLastListenerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, leave := context.WithCancel(t.Context())
		w.attach(ctx, control.ListenOptions{Answer: true, Slots: 1}, func(control.Record) *control.Answer { return nil })
		synctest.Wait()
		go w.Handle(t.Context(), message(codec.KindRequest, "t", "keeps it busy"))
		synctest.Wait()
		request, send := make(chan error, 1), make(chan error, 1)
		go func() { _, err := w.Handle(t.Context(), message(codec.KindRequest, "t", "r")); request <- err }()
		go func() { _, err := w.Handle(t.Context(), message(codec.KindSend, "t", "s")); send <- err }()
		synctest.Wait()
		leave()
		if err := <-request; !errors.Is(err, unicast.ErrNoListener) {
			t.Errorf("the request: %v", err)
		}
		if err := <-send; err != nil {
			t.Errorf("the send: %v", err)
		}
		if got := w.hasPrinted(); !slices.Equal(got, []string{"send s"}) {
			t.Errorf("printed %q", got)
		}
	})
}

func TestLimit(t *testing.T) {
	for _, answer := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			var mu sync.Mutex
			var types []string
			gone := w.attach(t.Context(), control.ListenOptions{Answer: answer, Slots: 9, Limit: 2}, func(r control.Record) *control.Answer {
				mu.Lock()
				defer mu.Unlock()
				types = append(types, r.Type)
				return &control.Answer{}
			})
			synctest.Wait()
			for i := range 3 {
				if _, err := w.Handle(t.Context(), message(codec.KindSend, "t", fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
			<-gone
			want := []string{control.RecordAttached, control.RecordMessage, control.RecordMessage, control.RecordEnd}
			if !slices.Equal(types, want) {
				t.Errorf("answer %v: told %q, want %q", answer, types, want)
			}
			if got := w.hasPrinted(); !slices.Equal(got, []string{"send 2"}) {
				t.Errorf("answer %v: the agent printed %q, want what came after the limit", answer, got)
			}
		})
	}
}

// A printing listener that does not read is told what it missed, and holds up
// nobody.
func TestSlowPrintingListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resume := make(chan struct{})
		var mu sync.Mutex
		lost, heard := 0, 0
		w.attach(ctx, control.ListenOptions{}, func(r control.Record) *control.Answer {
			if r.Message != nil && r.Seq == 1 {
				<-resume
			}
			mu.Lock()
			defer mu.Unlock()
			lost += r.Lost
			if r.Message != nil {
				heard++
			}
			return &control.Answer{}
		})
		synctest.Wait()
		const mib, n = 1 << 20, 20
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				_, err := w.Handle(t.Context(), unicast.Message{Kind: codec.KindSend, Topic: "t", Body: make([]byte, mib)})
				if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		// It was given one, six wait, the agent printed the others itself.
		if got := len(w.hasPrinted()); got != n-7 {
			t.Errorf("the agent printed %d, want %d", got, n-7)
		}
		close(resume)
		wg.Wait()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if heard != 7 || lost != n-7 {
			t.Errorf("the listener heard %d and missed %d, want 7 and %d", heard, lost, n-7)
		}
	})
}

// A printing listener that has stopped holds up no push and no gossip, and what
// waits for it is bounded even when the messages are empty.
func TestStoppedListenerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.attach(ctx, control.ListenOptions{}, func(control.Record) *control.Answer {
			<-ctx.Done()
			return nil
		})
		synctest.Wait()
		returned := make(chan struct{})
		const n = queueBytes/512 + 100
		go func() {
			defer close(returned)
			for range n {
				_, _ = w.Handle(t.Context(), message(codec.KindPush, "", ""))
				_ = w.HandleBroadcast(t.Context(), broadcast.Message{From: "n2"})
			}
		}()
		synctest.Wait()
		select {
		case <-returned:
		default:
			t.Fatal("a stopped listener holds up pushes and broadcasts")
		}
		if len(w.hasPrinted()) == 0 {
			t.Error("its queue takes any number of empty messages")
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		gone := w.attach(t.Context(), control.ListenOptions{Answer: true}, func(control.Record) *control.Answer { return nil })
		synctest.Wait()
		got := make(chan error, 1)
		go func() { _, err := w.Handle(t.Context(), message(codec.KindRequest, "t", "x")); got <- err }()
		synctest.Wait()
		w.Close()
		if err := <-got; !errors.Is(err, errStopping) {
			t.Errorf("what was under way: %v", err)
		}
		<-gone
		for _, err := range w.Listen(t.Context(), "n", control.ListenOptions{}) {
			if err == nil {
				t.Error("a closed hub takes listeners")
			}
		}
		if w.answer("nobody", 1, nil, nil) {
			t.Error("an answer of nobody was taken")
		}
	})
}

func TestMatchTopic(t *testing.T) {
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"*", "", true}, {"*", "anything", true},
		{"a", "a", true}, {"a", "ab", false}, {"", "", true}, {"", "a", false},
		{"orders.*", "orders.new", true}, {"orders.*", "orders.new.big", true}, {"orders.*", "orders.", true},
		{"orders.*", "orders", false}, {"orders.*", "ordersnew", false},
		{"orders*", "orders.new", false}, {"orders*", "orders*", true},
	} {
		if got := MatchTopic(c.pattern, c.topic); got != c.want {
			t.Errorf("MatchTopic(%q, %q) = %v", c.pattern, c.topic, got)
		}
	}
}
