package broadcast

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func TestWindow(t *testing.T) {
	w := newWindow[int](3)
	id := func(i int) codec.ID { return codec.NewID(1, uint64(i)) }
	has := func(want ...int) {
		t.Helper()
		var got []int
		for i := range 10 {
			if v, ok := w.get(id(i)); ok {
				if v != i*10 {
					t.Errorf("%d has value %d", i, v)
				}
				got = append(got, i)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("window holds %v, want %v", got, want)
		}
	}
	for i := range 3 {
		w.put(id(i), i*10)
	}
	has(0, 1, 2)
	w.put(id(3), 30)
	has(1, 2, 3)
	w.forget(id(2))
	has(1, 3)
	w.put(id(2), 20)
	has(2, 3)
	for i := range 1000 {
		w.put(codec.NewID(2, uint64(i)), 0)
	}
	if len(w.vals) != 3 || len(w.order) != 3 {
		t.Errorf("holds %d ids, %d in the ring, want 3", len(w.vals), len(w.order))
	}
}

func TestRecentIsBounded(t *testing.T) {
	start := time.Now()
	check := func(r *recent, want int) {
		t.Helper()
		state := r.encode(start)
		records, err := parseState(state)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) != want || len(state) > maxRecentBytes || len(state) != stateHeader+r.bytes {
			t.Errorf("%d messages in %d bytes (%d counted), want %d in at most %d", len(records), len(state), r.bytes, want, maxRecentBytes)
		}
	}
	var many, large recent
	for i := range 1000 {
		many.add(start, gossipFrom(t, "x", 7, uint64(i), "small"))
		large.add(start, gossipFrom(t, "x", 7, uint64(i), strings.Repeat("l", 1024)))
	}
	check(&many, maxRecent)
	check(&large, (maxRecentBytes-stateHeader)/(recordHeader+len(gossipFrom(t, "x", 7, 0, strings.Repeat("l", 1024)))))
	if records, _ := parseState(many.encode(start)); records[0].env.ID.Seq() != 1000-maxRecent {
		t.Errorf("the oldest kept is %d", records[0].env.ID.Seq())
	}

	// Oldest first, however they come; the oldest gives way.
	var r recent
	for _, age := range []int{5, 119, 1, 60, 120} {
		r.add(start.Add(-time.Duration(age)*time.Second), gossipFrom(t, "x", 7, uint64(age), "m"))
	}
	records, err := parseState(r.encode(start))
	if err != nil {
		t.Fatal(err)
	}
	var ages []time.Duration
	for _, rec := range records {
		ages = append(ages, rec.age/time.Second)
	}
	if want := []time.Duration{119, 60, 5, 1}; !reflect.DeepEqual(ages, want) {
		t.Errorf("ages %d, want %d", ages, want)
	}
	// A clock that was set back does not make a negative age.
	if records, err := parseState(r.encode(start.Add(-time.Hour))); err != nil || records[0].age != 0 {
		t.Errorf("records %v, error %v", records, err)
	}
}

// The format of the state, byte for byte.
func TestStateFormat(t *testing.T) {
	now := time.Now()
	var r recent
	r.add(now.Add(-90*time.Second), gossipFrom(t, "node1", 1, 2, "hi"))
	want := "01" + "0001" + // version, count
		"00015f90" + "0030" + // 90,000 ms, 48 bytes
		"50010500" + "0000000000000001" + "0000000000000002" + "0000000000000000" + "00000000" +
		"05000100" + "00000002" + hex.EncodeToString([]byte("node1"+"t"+"hi"))
	got := hex.EncodeToString(r.encode(now))
	if got != want {
		t.Errorf("state\n%s, want\n%s", got, want)
	}
}

func TestParseStateIsStrict(t *testing.T) {
	now := time.Now()
	var r recent
	r.add(now, gossipFrom(t, "x", 7, 1, "one"))
	r.add(now, gossipFrom(t, "x", 7, 2, "two"))
	good := r.encode(now)
	if records, err := parseState(good); err != nil || len(records) != 2 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i := 1; i < len(good); i++ { // no bytes at all is a state too
		if _, err := parseState(good[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(good))
		}
	}
	with := func(at int, b ...byte) []byte {
		s := bytes.Clone(good)
		copy(s[at:], b)
		return s
	}
	one := func(payload []byte) []byte {
		s := []byte{stateVersion, 0, 1, 0, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload))}
		return append(s, payload...)
	}
	tests := map[string]struct {
		state []byte
		text  string
	}{
		"version":      {with(0, 2), "version 2, want 1"},
		"no messages":  {[]byte{1, 0, 0}, "0 messages, want 1 to 256"},
		"too many":     {with(1, 1, 1), "257 messages"},
		"one missing":  {with(2, 3), "message 3 of 3 is cut off"},
		"one more":     {with(2, 1), "bytes too many"},
		"too old":      {with(3, 0, 1, 0xd4, 0xc1), "is 2m0.001s old"},
		"too large":    {make([]byte, maxRecentBytes+1), "push/pull state is 65537 bytes, the limit is 65536 bytes"},
		"no envelope":  {one([]byte("noise")), "not a Parley envelope"},
		"no gossip":    {one(broadcastFrom(t, "x", 7, 1, "b")), "a broadcast is not gossip"},
		"body":         {one(gossipFrom(t, "x", 7, 1, strings.Repeat("b", 1025))), "body is 1025 bytes"},
		"empty record": {one(nil), "message 1 of 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := parseState(tt.state); err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want one with %q", err, tt.text)
			}
		})
	}
}

func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2, 100, 2)
		put := func(ctx context.Context, name string, size int) chan error {
			done := make(chan error, 1)
			go func() {
				done <- q.put(ctx, &job{msg: Message{Topic: name, Body: make([]byte, size-len(name))}})
			}()
			synctest.Wait()
			return done
		}
		load := func(items, bytes, waiting int) {
			t.Helper()
			if i, b, w := q.load(); i != items || b != bytes || w != waiting {
				t.Errorf("queue holds %d messages, %d bytes, %d wait; want %d, %d, %d", i, b, w, items, bytes, waiting)
			}
		}
		take := func(want string) {
			t.Helper()
			if j, ok := q.take(); !ok || j.msg.Topic != want {
				t.Errorf("took %v, want %s", j, want)
			}
		}
		bg := context.Background()
		if err := <-put(bg, "a", 60); err != nil {
			t.Error(err)
		}
		b := put(bg, "b", 60) // too large beside a
		ctx, cancel := context.WithCancel(bg)
		c := put(ctx, "c", 10) // would fit, but b was first
		load(1, 60, 2)
		if err := <-put(bg, "d", 10); err != errFull {
			t.Errorf("third that waits: %v", err)
		}
		if err := q.offer(&job{}); err != errFull {
			t.Errorf("offer past those that wait: %v", err)
		}
		take("a")
		if err := errors.Join(<-b, <-c); err != nil {
			t.Error(err)
		}
		cancel() // too late for c
		load(2, 70, 0)

		// One in front gives up: the one behind it fits.
		ctx, cancel = context.WithCancel(bg)
		take("b")
		load(1, 10, 0)
		e := put(ctx, "e", 95)
		f := put(bg, "f", 20)
		load(1, 10, 2)
		cancel()
		if err := <-e; err != errFull {
			t.Errorf("gave up: %v", err)
		}
		if err := <-f; err != nil {
			t.Error(err)
		}
		load(2, 30, 0)

		// Alone, a message may be larger than the queue.
		take("c")
		take("f")
		if err := q.offer(&job{msg: Message{Body: make([]byte, 101)}}); err != nil {
			t.Error(err)
		}
		g := put(bg, "g", 1)
		left := q.close()
		if err := <-g; err != errQueueClosed || len(left) != 1 {
			t.Errorf("at close: %v, %d left", err, len(left))
		}
		load(0, 0, 0)
		if _, ok := q.take(); ok {
			t.Error("took from a closed queue")
		}
		if err := errors.Join(q.offer(&job{}), <-put(bg, "h", 1)); !errors.Is(err, errQueueClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}

func TestPlan(t *testing.T) {
	got := plan(map[string]bool{"c": true, "a": false, "b": true})
	if want := []hop{{"a", false}, {"b", true}, {"c", true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("plan %v, want %v", got, want)
	}
}

// What goes wrong often is logged now and then, with how often it was not.
func TestOccasional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o occasional
		var logged []int
		note := func(missed int) { logged = append(logged, missed) }
		for range 25 { // 25 s
			o.do(note)
			o.do(note)
			time.Sleep(time.Second)
		}
		if want := []int{0, 19, 19}; !reflect.DeepEqual(logged, want) {
			t.Errorf("logged %v, want %v", logged, want)
		}
	})
}

// A handler's failure is in the log when nobody else is told, and a panic with
// its stack in any case.
func TestHandlerFailuresAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		cfg := Config{Logger: slog.New(slog.NewTextHandler(&out, nil))}
		n := newNetwork(t)
		a := n.add("a", HandlerFunc(func(_ context.Context, m Message) error {
			if m.Topic == "t" {
				return fmt.Errorf("no room for %s", m.Body)
			}
			panic("boom")
		}), cfg)
		a.post(gossipFrom(t, "x", 7, 1, "hint"))
		if _, err := a.all.accept(t.Context(), "x", broadcastFrom(t, "x", 7, 1, "reliable")); err == nil || err.Error() != "no room for reliable" {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if s := out.String(); !strings.Contains(s, "no room for hint") || strings.Contains(s, "no room for reliable") ||
			!strings.Contains(s, "node=a service=broadcast peer=x") {
			t.Errorf("log:\n%s", s)
		}
		a.post(encode(t, codec.Envelope{Kind: codec.KindGossip, ID: codec.NewID(7, 2), From: "x", Topic: "panic"}))
		synctest.Wait()
		if s := out.String(); !strings.Contains(s, "err=boom") || !strings.Contains(s, "internals_test.go") {
			t.Errorf("log:\n%s", s)
		}
		a.post(gossipFrom(t, "x", 7, 3, "after")) // the worker lives on
		synctest.Wait()
		if s := a.all.Stats(); s.Handled != 4 || s.HandlerErrors != 4 || s.HandlerPanics != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func FuzzParseState(f *testing.F) {
	now := time.Now()
	var r recent
	f.Add([]byte{})
	r.add(now.Add(-time.Second), gossipFrom(f, "x", 7, 1, "one"))
	f.Add(r.encode(now))
	r.add(now, gossipFrom(f, "node-2", 8, 2, ""))
	f.Add(r.encode(now))
	f.Add([]byte{1, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseState(b)
		if err != nil || len(records) == 0 {
			return
		}
		// What is accepted is what we would have written, byte for byte.
		again := []byte{stateVersion, byte(len(records) >> 8), byte(len(records))}
		for _, rec := range records {
			ms := rec.age.Milliseconds()
			payload := encode(t, rec.env)
			again = append(again, byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms), byte(len(payload)>>8), byte(len(payload)))
			again = append(again, payload...)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("accepted %x, would write %x", b, again)
		}
	})
}

// Nothing that arrives, by any of the three ways, may break a node, and what is
// delivered is within the limits.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{}, "x")
	f.Add(gossipFrom(f, "x", 7, 1, "one"), "x")
	f.Add(broadcastFrom(f, "x", 7, 1, "one"), "x")
	var r recent
	r.add(time.Now(), gossipFrom(f, "x", 7, 1, "one"))
	f.Add(r.encode(time.Now()), "y")
	f.Fuzz(func(t *testing.T, b []byte, from string) {
		n := newNetwork(t)
		node := n.member("a")
		check := HandlerFunc(func(_ context.Context, m Message) error {
			switch {
			case codec.ValidName(m.From) != nil, checkTopic(m.Topic) != nil:
				t.Errorf("delivered from %q on %q", m.From, m.Topic)
			case m.Reliable && len(m.Body) > 2000, !m.Reliable && len(m.Body) > MaxGossip:
				t.Errorf("delivered %d bytes", len(m.Body))
			}
			return nil
		})
		node.open(check, Config{MaxMessage: 2000, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		node.all.receive(bytes.Clone(b))
		node.mergeFrom(b)
		node.mergeFrom(b)
		_, _ = node.all.accept(t.Context(), from, bytes.Clone(b))
		node.close()
	})
}
