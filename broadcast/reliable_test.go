package broadcast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func TestReliableReceiptNamesEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{})
		b, c := n.add("b", nil, Config{}), n.add("c", nil, Config{})
		n.add("d", HandlerFunc(func(context.Context, Message) error { return errors.New("disk full") }), Config{})
		n.add("e", HandlerFunc(func(context.Context, Message) error { panic("oh") }), Config{})
		mute := n.member("f") // no mailbox: memberlist's stream
		mute.mailbox = false
		mute.open(mute.got, Config{})
		n.member("g") // a mailbox and no broadcaster
		dead := n.add("h", nil, Config{})
		n.cut = func(x, y string) bool { return false }

		body := strings.Repeat("large ", 1<<20/6)
		recipients := a.Recipients("unicast-rep")
		dead.setDown()
		a.all.gossip = fixed{a, recipients} // h dies after the call has begun
		receipt, err := a.all.Reliable(t.Context(), "config", []byte(body))
		synctest.Wait()

		if want := []string{"b", "c"}; !slices.Equal(receipt.Handled, want) {
			t.Errorf("handled %q, want %q", receipt.Handled, want)
		}
		if want := []string{"f"}; !slices.Equal(receipt.Written, want) {
			t.Errorf("written %q, want %q", receipt.Written, want)
		}
		why := map[string]string{
			"d": "d: handler error: disk full",
			"e": "e: handler panic: panic: oh",
			"g": "no listener",
			"h": "node has failed",
		}
		got := make(map[string]string)
		for name, err := range receipt.Failed {
			got[name] = err.Error()
		}
		if !reflect.DeepEqual(got, why) {
			t.Errorf("failed %q, want %q", got, why)
		}
		var partial *PartialError
		if !errors.As(err, &partial) || partial.Handled != 2 || partial.Written != 1 || len(partial.Failed) != 4 || partial.ID != receipt.ID {
			t.Errorf("error %#v", err)
		}
		if want := "broadcast: 4 of 7 members failed: d: d: handler error: disk full; e: e: handler panic: panic: oh; g: no listener; and 1 more"; err.Error() != want {
			t.Errorf("error text\n %v, want\n %v", err, want)
		}
		if !errors.Is(err, errDown) || !errors.Is(err, errNoListener) {
			t.Error("the members' errors cannot be told from the whole")
		}
		for _, f := range []*fakeNode{b, c, mute} {
			if got := f.got.bodies(); len(got) != 1 || got[0] != body {
				t.Errorf("%s got %d messages", f.name, len(got))
				continue
			}
			if m := f.got.last(); m.From != "a" || m.Topic != "config" || !m.Reliable || m.ID != receipt.ID {
				t.Errorf("%s got %v from %q on %q, reliable %v", f.name, m.ID, m.From, m.Topic, m.Reliable)
			}
		}
		if got := a.got.bodies(); got != nil {
			t.Errorf("the sender's own handler got %d messages", len(got))
		}
		if s := a.all.Stats(); s.ReliableSent != 1 || s.MembersHandled != 2 || s.MembersWritten != 1 || s.MembersFailed != 4 {
			t.Errorf("stats %+v", s)
		}
	})
}

// fixed is a Gossip whose recipients do not change.
type fixed struct {
	*fakeNode
	recipients map[string]bool
}

func (f fixed) Recipients(string) map[string]bool { return f.recipients }

func TestReliableAlone(t *testing.T) {
	a := newNetwork(t).add("a", nil, Config{})
	receipt, err := a.all.Reliable(t.Context(), "t", nil)
	if err != nil || receipt.Handled != nil || receipt.Written != nil || receipt.Failed != nil {
		t.Errorf("receipt %+v, error %v", receipt, err)
	}
}

func TestReliableRefuses(t *testing.T) {
	over, cancel := context.WithCancelCause(context.Background())
	why := errors.New("changed my mind")
	cancel(why)
	tests := []struct {
		name   string
		ctx    context.Context
		topic  string
		size   int
		cfg    Config
		closed bool
		check  func(error) bool
	}{
		{name: "body", size: DefaultMaxMessage + 1, check: limit("body", DefaultMaxMessage+1, DefaultMaxMessage)},
		{name: "configured", size: 101, cfg: Config{MaxMessage: 100}, check: limit("body", 101, 100)},
		{name: "topic", topic: strings.Repeat("t", 256), check: limit("topic", 256, 255)},
		{name: "reserved", topic: "$x", check: is(ErrReservedTopic)},
		{name: "over", ctx: over, check: is(why)},
		{name: "closed", closed: true, check: is(ErrClosed, net.ErrClosed)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			a, b := n.add("a", nil, tt.cfg), n.add("b", nil, Config{})
			if tt.closed {
				a.all.Close()
			}
			if tt.ctx == nil {
				tt.ctx = t.Context()
			}
			receipt, err := a.all.Reliable(tt.ctx, tt.topic, make([]byte, tt.size))
			if err == nil || !tt.check(err) || !strings.HasPrefix(err.Error(), "broadcast: reliable: ") {
				t.Errorf("error %v", err)
			}
			if !reflect.DeepEqual(receipt, Receipt{}) || b.all.Stats().ReliableReceived != 0 {
				t.Error("sent all the same")
			}
			if s := a.all.Stats(); s.ReliableRefused != 1 || s.ReliableSent != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
	t.Run("no sender", func(t *testing.T) {
		f := newNetwork(t).member("a")
		b, err := Open(f, nil, f.got, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := b.Reliable(t.Context(), "t", nil); !errors.Is(err, ErrNoSender) {
			t.Errorf("error %v", err)
		}
	})
}

// When the caller's time is over, the receipt tells those that had answered from
// those that had not, and those that had not even been sent to.
func TestReliableDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{Fanout: 2})
		n.add("b", nil, Config{})
		var cause atomic.Value
		slow := HandlerFunc(func(ctx context.Context, m Message) error {
			<-ctx.Done()
			cause.Store(context.Cause(ctx))
			return ctx.Err()
		})
		for _, name := range []string{"c", "d", "e"} {
			n.add(name, slow, Config{})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		receipt, err := a.all.Reliable(ctx, "t", []byte("x"))
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v, the context 3s", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(receipt.Handled, []string{"b"}) || len(receipt.Failed) != 3 {
			t.Errorf("receipt %+v, error %v", receipt, err)
		}
		if e := receipt.Failed["e"]; e == nil || !strings.HasPrefix(e.Error(), "not sent: ") {
			t.Errorf("e: %v", e)
		}
		synctest.Wait()
		if got, _ := cause.Load().(error); !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("the handler's context ended with %v", got)
		}
	})
}

// Without a deadline, a member that takes no bytes costs ten seconds, not for ever.
func TestReliableWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{})
		a.all.gossip = stuck{fixed{a, map[string]bool{"b": false}}}
		receipt, err := a.all.Reliable(context.Background(), "t", nil)
		if !errors.Is(err, context.DeadlineExceeded) || receipt.Failed["b"] == nil {
			t.Errorf("receipt %+v, error %v", receipt, err)
		}
	})
}

// stuck is a Gossip whose streams take nothing.
type stuck struct{ fixed }

func (stuck) SendReliable(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestReliableFanoutIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{Fanout: 3})
		var now, most atomic.Int64
		h := HandlerFunc(func(context.Context, Message) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		})
		for i := range 9 {
			n.add(fmt.Sprintf("node%d", i), h, Config{})
		}
		start := time.Now()
		receipt, err := a.all.Reliable(t.Context(), "t", nil)
		if err != nil || len(receipt.Handled) != 9 {
			t.Errorf("receipt %+v, error %v", receipt, err)
		}
		if most.Load() != 3 || time.Since(start) != 3*time.Second {
			t.Errorf("%d at once, %v", most.Load(), time.Since(start))
		}
	})
}

// A member that joins during the call does not get the message.
func TestReliableRecipientsAreFixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{})
		reached, release := make(chan struct{}), make(chan struct{})
		n.add("b", HandlerFunc(func(context.Context, Message) error {
			close(reached)
			<-release
			return nil
		}), Config{})
		result := make(chan Receipt)
		go func() {
			r, _ := a.all.Reliable(t.Context(), "t", nil)
			result <- r
		}()
		<-reached
		late := n.add("c", nil, Config{})
		close(release)
		if r := <-result; !slices.Equal(r.Handled, []string{"b"}) || r.Failed != nil {
			t.Errorf("receipt %+v", r)
		}
		synctest.Wait()
		if got := late.got.bodies(); got != nil {
			t.Errorf("c got %q", got)
		}
	})
}

// Close ends a Reliable call under way, and its handler on the other side is not
// told that all is well.
func TestCloseEndsReliable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := n.add("a", nil, Config{})
		n.add("b", HandlerFunc(func(ctx context.Context, _ Message) error { <-ctx.Done(); return nil }), Config{})
		result := make(chan error)
		go func() {
			r, err := a.all.Reliable(context.Background(), "t", nil)
			if !errors.Is(r.Failed["b"], ErrClosed) {
				t.Errorf("receipt %+v", r)
			}
			result <- err
		}()
		synctest.Wait()
		a.all.Close()
		var partial *PartialError
		if err := <-result; !errors.Is(err, net.ErrClosed) || !errors.As(err, &partial) {
			t.Errorf("error %v", err)
		}
	})
}

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

// The name inside must be the one that the overlay vouches for.
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
		if _, err := a.all.accept(ctx, "x", broadcastFrom(t, "x", 7, 2, "second")); !errors.Is(err, context.DeadlineExceeded) {
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
