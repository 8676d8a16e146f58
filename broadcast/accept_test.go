package broadcast

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func broadcastFrom(t testing.TB, from string, instance, seq uint64, body string) []byte {
	return encode(t, codec.Envelope{Kind: codec.KindBroadcast, ID: codec.NewID(instance, seq), From: from, Topic: "t", Body: []byte(body)})
}

func status(err error) (codec.Status, bool) {
	var s interface{ ReplyStatus() codec.Status }
	if errors.As(err, &s) {
		return s.ReplyStatus(), true
	}
	return 0, false
}

// The name inside must be the one that the overlay has of the sender.
func TestAcceptRefuses(t *testing.T) {
	a := newNetwork(t).add("a", nil, Config{MaxMessage: 100})
	tests := map[string][]byte{
		"somebody else's name": broadcastFrom(t, "y", 7, 1, "b"),
		"gossip":               gossipFrom(t, "x", 7, 1, "b"),
		"noise":                []byte("noise"),
		"too large":            broadcastFrom(t, "x", 7, 1, strings.Repeat("b", 101)),
		"own instance":         broadcastFrom(t, "x", a.instance, 1, "b"),
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			before := a.all.Stats().Malformed
			_, err := a.all.accept(t.Context(), "x", payload)
			if s, ok := status(err); !ok || s != codec.StatusMalformed {
				t.Errorf("error %v", err)
			}
			if a.all.Stats().Malformed != before+1 {
				t.Error("not counted")
			}
		})
	}
	if got := a.got.bodies(); got != nil {
		t.Errorf("handled %q", got)
	}
}

// A copy gets the answer of the first, during and after, and the handler sees one.
func TestDuplicatesAreAnsweredAlike(t *testing.T) {
	for _, answer := range []error{nil, errors.New("no")} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			release := make(chan struct{})
			var calls atomic.Int64
			a := n.add("a", HandlerFunc(func(context.Context, Message) error {
				calls.Add(1)
				<-release
				return answer
			}), Config{})
			payload := broadcastFrom(t, "x", 7, 1, "b")
			errs := make(chan error)
			for range 3 {
				go func() {
					_, err := a.all.accept(context.Background(), "x", payload)
					errs <- err
				}()
			}
			synctest.Wait()
			close(release)
			for range 3 {
				if err := <-errs; err != answer {
					t.Errorf("error %v, want %v", err, answer)
				}
			}
			if _, err := a.all.accept(context.Background(), "x", payload); err != answer {
				t.Errorf("later: error %v, want %v", err, answer)
			}
			if s := a.all.Stats(); calls.Load() != 1 || s.ReliableReceived != 1 || s.ReliableDuplicates != 3 {
				t.Errorf("%d calls, stats %+v", calls.Load(), s)
			}
		})
	}
}

// A message whose sender has given up before its turn is not handled. It may be
// brought again.
func TestExpiredInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		release := make(chan struct{})
		var seen recorder
		a := n.add("a", HandlerFunc(func(ctx context.Context, m Message) error {
			<-release
			return seen.HandleBroadcast(ctx, m)
		}), Config{})
		go a.all.accept(context.Background(), "x", broadcastFrom(t, "x", 7, 1, "first"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := a.all.accept(ctx, "x", broadcastFrom(t, "x", 7, 2, "second"))
		if s, _ := status(err); s != codec.StatusBusy || err.Error() != "not begun in time" {
			t.Errorf("error %v", err)
		}
		close(release)
		synctest.Wait()
		if got := seen.bodies(); !slices.Equal(got, []string{"first"}) {
			t.Errorf("handled %q", got)
		}
		if s := a.all.Stats(); s.Expired != 1 || s.Dropped != 0 {
			t.Errorf("stats %+v", s)
		}
		if _, err := a.all.accept(context.Background(), "x", broadcastFrom(t, "x", 7, 2, "second")); err != nil {
			t.Error(err)
		}
		if got := seen.bodies(); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("handled %q", got)
		}
	})
}

// Whoever brings a message and gives up before its turn ends it for all that
// brought it: each is told what is true.
func TestExpiredForCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		release := make(chan struct{})
		var seen recorder
		a := n.add("a", HandlerFunc(func(ctx context.Context, m Message) error {
			<-release
			return seen.HandleBroadcast(ctx, m)
		}), Config{})
		go a.all.accept(context.Background(), "x", broadcastFrom(t, "x", 7, 1, "first"))
		synctest.Wait()
		second := broadcastFrom(t, "x", 7, 2, "second")
		patient := make(chan error, 1)
		go func() {
			_, err := a.all.accept(context.Background(), "x", second)
			patient <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, hasty := a.all.accept(ctx, "x", second)
		for _, err := range []error{hasty, <-patient} {
			if s, _ := status(err); s != codec.StatusBusy {
				t.Errorf("error %v", err)
			}
		}
		again := make(chan error, 1)
		go func() { // while the job that was given up is still in the queue
			_, err := a.all.accept(context.Background(), "x", second)
			again <- err
		}()
		synctest.Wait()
		close(release)
		if err := <-again; err != nil {
			t.Error(err)
		}
		if got := seen.bodies(); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("handled %q", got)
		}
		if s := a.all.Stats(); s.Expired != 1 || s.Handled != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A message that the handler has begun with is not taken back when its sender
// gives up: the answer says that time is over, not that nothing was delivered.
func TestExpiredInTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", HandlerFunc(func(ctx context.Context, m Message) error {
			time.Sleep(time.Minute)
			return nil
		}), Config{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		payload := broadcastFrom(t, "x", 7, 1, "b")
		if _, err := a.all.accept(ctx, "x", payload); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		} else if s, ok := status(err); ok {
			t.Errorf("answered %v", s)
		}
		if _, err := a.all.accept(context.Background(), "x", payload); err != nil {
			t.Errorf("a copy: %v", err)
		}
		if s := a.all.Stats(); s.Handled != 1 || s.Expired != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// With a full queue, reliable messages wait for room, as long as their senders do
// and as long as not too many of them wait.
func TestReliableOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		step := make(chan struct{})
		a := n.add("a", HandlerFunc(func(context.Context, Message) error { <-step; return nil }), Config{})
		big := strings.Repeat("x", 1<<20)
		accept := func(ctx context.Context, seq uint64, body string) chan error {
			done := make(chan error, 1)
			go func() {
				_, err := a.all.accept(ctx, "x", broadcastFrom(t, "x", 7, seq, body))
				done <- err
			}()
			synctest.Wait()
			return done
		}
		var handled []chan error
		for seq := range uint64(8) { // one with the handler, seven in 8 MiB (topics count too)
			handled = append(handled, accept(context.Background(), seq, big))
		}
		if s := a.all.Stats(); s.QueueMessages != 7 || s.QueueWaiting != 0 {
			t.Fatalf("stats %+v", s)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		hasty := accept(ctx, 100, big)
		patient := accept(context.Background(), 101, big)
		if s := a.all.Stats(); s.QueueWaiting != 2 {
			t.Fatalf("stats %+v", s)
		}
		time.Sleep(time.Second)
		if s, _ := status(<-hasty); s != codec.StatusBusy {
			t.Error("not busy")
		}
		// Gossip does not overtake those that wait.
		a.post(gossipFrom(t, "y", 8, 1, "hint"))
		synctest.Wait()
		if s := a.all.Stats(); s.Dropped != 1 || s.Busy != 1 {
			t.Errorf("stats %+v", s)
		}
		close(step)
		for _, done := range append(handled, patient) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}

		// At the bound of those that wait, the answer comes at once.
		step = make(chan struct{})
		for i := range uint64(9) {
			accept(context.Background(), 200+i, big)
		}
		for i := range uint64(maxWaiting - 1) {
			accept(context.Background(), 300+i, "small, and it would fit, but others were here before it")
		}
		if s, _ := status(<-accept(context.Background(), 999, "small")); s != codec.StatusBusy {
			t.Error("not busy")
		}
		close(step)
	})
}
