package broadcast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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
