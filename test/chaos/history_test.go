package chaos_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/test/chaos"
)

func TestMessage(t *testing.T) {
	h := chaos.NewHistory(chaos.Rules{})
	s := h.Sender("s")
	for _, size := range []int{0, chaos.MinSize, chaos.MinSize + 1, 100, 70000} {
		m := s.Next(3, size)
		b := m.Append([]byte("before"))[len("before"):]
		if want := max(size, chaos.MinSize); len(b) != want {
			t.Errorf("%d bytes, want %d", len(b), want)
		}
		got, err := chaos.Parse(b)
		if err != nil || got != *m {
			t.Errorf("%+v became %+v, %v", *m, got, err)
		}
		for i := 0; i < len(b); i += 1 + len(b)/50 {
			altered := bytes.Clone(b)
			altered[i] ^= 4
			if _, err := chaos.Parse(altered); err == nil {
				t.Errorf("byte %d of %d altered without notice", i, len(b))
			}
			if _, err := chaos.Parse(b[:i]); err == nil {
				t.Errorf("%d of %d bytes pass for all", i, len(b))
			}
		}
		reply, err := chaos.Parse(m.Reply(200).Append(nil))
		if err != nil || !reply.Answers(m) {
			t.Errorf("the reply %+v, %v, does not answer %+v", reply, err, *m)
		}
		if got.Answers(m) {
			t.Error("a request answers itself")
		}
		if other := s.Next(3, size); reply.Answers(other) {
			t.Errorf("the reply to %+v answers %+v, too", *m, *other)
		}
	}
}

// Each rule is broken once, and only the broken one is told. A history that keeps all
// rules has no violations.
func TestHistory(t *testing.T) {
	type world struct {
		h    *chaos.History
		s    *chaos.Sender
		sent map[uint64][]byte
	}
	next := func(w *world, path uint32) uint64 {
		m := w.s.Next(path, 50)
		w.sent[m.Seq] = m.Append(nil)
		return m.Seq
	}
	handle := func(w *world, seqs ...uint64) {
		for _, seq := range seqs {
			w.h.Handled(w.sent[seq])
		}
	}
	ordered := chaos.Rules{Increasing: true, Prefix: true}
	tests := []struct {
		name  string
		rules chaos.Rules
		play  func(*world)
		want  string // part of the one violation; empty: there is none
	}{
		{"good", ordered, func(w *world) {
			a, b, c, d, e := next(w, 1), next(w, 1), next(w, 1), next(w, 1), next(w, 1)
			w.s.Accepted(a)
			handle(w, a, b) // before the call returned
			w.s.Accepted(b)
			w.s.Refused(c)
			w.s.Accepted(d)
			w.s.Accepted(e)
			w.s.Unsent(e)
			w.s.Settle()
			w.s.Resend(e, 2)
			w.s.Accepted(e)
			handle(w, e)
			f := next(w, 2)
			w.s.Refused(f)
			w.sent[f] = w.s.Again(f, 3).Append(nil)
			w.s.Accepted(f)
			handle(w, f)
		}, ""},
		{"good requests", chaos.Rules{}, func(w *world) {
			a, b, c := next(w, 1), next(w, 1), next(w, 1)
			handle(w, c, a)
			w.s.Answered(a)
			w.s.Unknown(b)
			w.s.Unknown(c)
			handle(w, b)
		}, ""},
		{"good repetition", chaos.Rules{}, func(w *world) {
			w.s.MayRepeat()
			a := next(w, 1)
			handle(w, a, a)
			w.s.Answered(a)
		}, ""},
		{"repeated and refused", chaos.Rules{}, func(w *world) {
			w.s.MayRepeat()
			a := next(w, 1)
			handle(w, a)
			w.s.Refused(a)
		}, "before its call said that it was not sent"},
		{"doubled", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Accepted(a)
			handle(w, a, a)
		}, "handled twice"},
		{"doubled after all", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Accepted(a)
			handle(w, a)
			w.s.Settle()
			handle(w, a)
		}, "when everything was over"},
		{"handled after the answer", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			handle(w, a)
			w.s.Answered(a)
			handle(w, a)
		}, "twice"},
		{"invented", chaos.Rules{}, func(w *world) {
			w.h.Handled([]byte("something else altogether, and it is long enough for a message"))
		}, "invented or altered"},
		{"of nobody", chaos.Rules{}, func(w *world) {
			w.h.Handled((&chaos.Message{Sender: 7, Seq: 1}).Append(nil))
		}, "not known"},
		{"never sent", chaos.Rules{}, func(w *world) {
			w.h.Handled((&chaos.Message{Sender: 1, Seq: 1}).Append(nil))
		}, "never sent"},
		{"of another size", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Accepted(a)
			w.h.Handled((&chaos.Message{Sender: 1, Path: 1, Seq: a, Size: 51}).Append(nil))
		}, "with 51 bytes"},
		{"out of order", chaos.Rules{Increasing: true}, func(w *world) {
			a, b := next(w, 1), next(w, 1)
			w.s.Accepted(a)
			w.s.Accepted(b)
			handle(w, b, a)
		}, "after number 2"},
		{"gap", chaos.Rules{Prefix: true}, func(w *world) {
			a, b := next(w, 1), next(w, 1)
			w.s.Accepted(a)
			w.s.Accepted(b)
			handle(w, b)
		}, "one before it"},
		{"gap of an unsent one", chaos.Rules{Prefix: true}, func(w *world) {
			a, b := next(w, 1), next(w, 1)
			w.s.Accepted(a)
			w.s.Accepted(b)
			handle(w, b)
			w.s.Unsent(a)
		}, "one before it"},
		{"refused and handled", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Refused(a)
			handle(w, a)
		}, "after its call said that it was not sent"},
		{"handled and refused", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			handle(w, a)
			w.s.Refused(a)
		}, "before its call said that it was not sent"},
		{"sent again and handled as before", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Refused(a)
			w.s.Again(a, 2)
			handle(w, a)
			w.s.Accepted(a)
		}, "as sent on path 1"},
		{"unsent and handled", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Accepted(a)
			w.s.Unsent(a)
			handle(w, a)
		}, "after it was reported as never written"},
		{"handled and unsent", chaos.Rules{}, func(w *world) {
			a := next(w, 1)
			w.s.Accepted(a)
			handle(w, a)
			w.s.Unsent(a)
		}, "before it was reported as never written"},
		{"answered and not handled", chaos.Rules{}, func(w *world) {
			w.s.Answered(next(w, 1))
		}, "was not handled when its call said"},
		{"never returned", chaos.Rules{}, func(w *world) { next(w, 1) }, "still being sent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := chaos.NewHistory(tt.rules)
			w := &world{h: h, s: h.Sender("s"), sent: make(map[uint64][]byte)}
			tt.play(w)
			h.Settle()
			switch v := h.Violations(); {
			case tt.want == "" && len(v) > 0:
				t.Errorf("violations of a good history: %q", v)
			case tt.want != "" && (len(v) != 1 || !strings.Contains(v[0], tt.want)):
				t.Errorf("violations are %q, want one with %q", v, tt.want)
			}
		})
	}
}

func TestHistoryCounts(t *testing.T) {
	h := chaos.NewHistory(chaos.Rules{Prefix: true})
	s := h.Sender("s")
	for seq := range uint64(10) {
		m := s.Next(1, 100)
		s.Accepted(m.Seq)
		if seq < 5 {
			h.Handled(m.Append(nil))
		}
	}
	s.Unsent(9)
	s.Unsent(10)
	if lost, bytes := h.Settle(); lost != 3 || bytes != 300 {
		t.Errorf("%d messages and %d bytes lost, want 3 and 300", lost, bytes)
	}
	want := chaos.Tally{Sent: 10, Accepted: 10, Unsent: 2, Handled: 5, Lost: 3, LostBytes: 300}
	if got := h.Tally(); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	h.Check(t)
}

func TestTimes(t *testing.T) {
	var ts chaos.Times
	if d, n := ts.Quantile(0.5); d != 0 || n != 0 {
		t.Errorf("of nothing: %v, %d", d, n)
	}
	for i := range 1000 {
		ts.Add(time.Duration(1000 - i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 501, 0.99: 991, 1: 1000} {
		if d, n := ts.Quantile(q); d != want || n != 1000 {
			t.Errorf("%v: %v of %d, want %v", q, d, n, want)
		}
	}
}
