package codec

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
)

// fuzzBodyLimit is the body limit under fuzzing.
const fuzzBodyLimit = 1 << 10

// wantTyped asserts that a refusal is of a kind that callers can tell.
func wantTyped(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrNotEnvelope) || errors.Is(err, ErrNotReply) ||
		errors.As(err, new(*VersionError)) || errors.As(err, new(*LimitError)) || errors.As(err, new(*FormatError)) {
		if len(err.Error()) > 1024 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		return
	}
	t.Errorf("untyped error %T %v", err, err)
}

// watchAllocations reports when what runs after it allocates more than limit
// bytes. The runtime counts small objects late, so it is for gross errors: a
// length that was believed.
func watchAllocations(t *testing.T, limit int) (done func()) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	return func() {
		t.Helper()
		metrics.Read(sample)
		if n := sample[0].Value.Uint64() - before; n > uint64(limit) {
			t.Errorf("%d bytes allocated, expected at most %d", n, limit)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	for _, b := range goldenFiles(f, "envelope-") {
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("hello"))
	f.Add([]byte{envelopeMagic, Version + 1})
	parser := NewParser()
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnvelope(b, fuzzBodyLimit)
		for range 2 { // the second time it may remember the first
			got, gotErr := parse(parser, b, fuzzBodyLimit)
			if !reflect.DeepEqual(got, e) || !reflect.DeepEqual(gotErr, err) {
				t.Errorf("the Parser says %+v, %v; without it %+v, %v", got, gotErr, e, err)
			}
		}
		if err != nil {
			wantTyped(t, err)
			return
		}
		head, err := e.AppendHead(nil)
		if err != nil || !bytes.Equal(append(head, e.Body...), b) {
			t.Errorf("%v\n    %x\nwas %x", err, head, b)
		}
		if len(e.Body) > fuzzBodyLimit {
			t.Errorf("a body of %d bytes", len(e.Body))
		}
		if id, ok := EnvelopeID(b); !ok || id != e.ID {
			t.Errorf("EnvelopeID %v, %v", id, ok)
		}
		again, err := e.Append(nil)
		if err != nil || !bytes.Equal(again, b) || e.Size() != len(b) {
			t.Errorf("%v\n    %x\nwas %x", err, again, b)
		}
		if _, err := ParseReply(b, fuzzBodyLimit); !errors.Is(err, ErrNotReply) {
			t.Errorf("an envelope is read as a reply: %v", err)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	for _, b := range goldenFiles(f, "reply-") {
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("Right"))
	f.Add([]byte{replyMagic, Version + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReply(b, fuzzBodyLimit)
		if err != nil {
			wantTyped(t, err)
			return
		}
		if len(r.Body) > fuzzBodyLimit || len(r.Text) > MaxText {
			t.Errorf("a body of %d bytes, a text of %d", len(r.Body), len(r.Text))
		}
		head, err := r.AppendHead(nil)
		if err != nil || !bytes.Equal(append(head, r.Body...), b) {
			t.Errorf("%v\n    %x\nwas %x", err, head, b)
		}
		again, err := r.Append(nil)
		if err != nil || !bytes.Equal(again, b) || r.Size() != len(b) {
			t.Errorf("%v\n    %x\nwas %x", err, again, b)
		}
		if _, err := ParseEnvelope(b, fuzzBodyLimit); !errors.Is(err, ErrNotEnvelope) {
			t.Errorf("a reply is read as an envelope: %v", err)
		}
	})
}

// FuzzReplyText: whatever a handler's error says, the reply can be read.
func FuzzReplyText(f *testing.F) {
	f.Add("no such invoice: № 7\n")
	f.Add("\x1b[2J\xff" + strings.Repeat("😀", MaxText/4))
	f.Add(strings.Repeat("\xff", MaxText+1))
	f.Fuzz(func(t *testing.T, text string) {
		r := Reply{Status: StatusHandlerError, Text: text}
		b, err := r.Append(nil)
		if err != nil || len(b) != r.Size() || len(b) > ReplyOverhead {
			t.Fatalf("%v: %d bytes, Size %d", err, len(b), r.Size())
		}
		got, err := ParseReply(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := got.Append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%v: cleaning twice changes %q", err, got.Text)
		}
	})
}

func FuzzParseMetadata(f *testing.F) {
	for _, b := range goldenFiles(f, "metadata-") {
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("\xdd\x00\x00\x00\x07\xcc\x01\xd0\x00\xda\x00\x01n\x01\x00\xde\x00\x00\xdf\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMetadata(b)
		if err != nil {
			wantTyped(t, err)
			return
		}
		if err := scanMsgpack(b); err != nil {
			t.Errorf("metadata that is not msgpack: %v", err)
		}
		shortest, err := m.Append(nil)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if len(shortest) > len(b) {
			t.Errorf("the shortest form has %d bytes, there was one of %d", len(shortest), len(b))
		}
		again, err := ParseMetadata(shortest)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%v\n    %+v\nwas %+v", err, again, m)
		}
	})
}

func FuzzUnmarshalMsgpack(f *testing.F) {
	b, err := Msgpack{}.Marshal(anOrder)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, b := range goldenFiles(f, "metadata-") {
		f.Add(b)
	}
	for _, s := range []string{"\xc0", "\xdd\xff\xff\xff\xff\x01", "\x81\x92\x01\x02\xca\x7f\xc0\x00\x00", "\xd6\xff\x00\x00\x00\x01",
		"\xc7\x0c\xff\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff", "\x91\x91\x91\x91\xc4\x01\xff", "\x82\xa1a\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xa1b\xdf\x00\x00\x00\x01\xa0\xc3",
		"\x83\xa00\xcc0\xa10\xcc0\xa10", // an empty key, which the library trips over
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		limit := 512*len(b) + 8<<20
		for _, target := range []any{new(order), new([]order), new(map[string]order), new(string), new([]byte), new(int8), new(any)} {
			done := watchAllocations(t, limit)
			_ = (Msgpack{}).Unmarshal(b, target)
			done()
		}
		var v any
		if err := (Msgpack{}).Unmarshal(b, &v); err != nil {
			if scanMsgpack(b) != nil {
				wantTyped(t, err)
			}
			return
		}
		if hasOddTime(v) {
			return
		}
		first, err := Msgpack{}.Marshal(v)
		if err != nil {
			t.Fatalf("%#v: %v", v, err)
		}
		var again any
		if err := (Msgpack{}).Unmarshal(first, &again); err != nil {
			t.Fatalf("%x: %v", first, err)
		}
		second, err := Msgpack{}.Marshal(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("%v\n    %x\nwas %x", err, second, first)
		}
	})
}

// hasOddTime finds times whose seconds since the year 1 overflow: they have no
// stable form in Go.
func hasOddTime(v any) bool {
	switch v := v.(type) {
	case interface{ Unix() int64 }:
		return v.Unix() > math.MaxInt64/2 || v.Unix() < math.MinInt64/2
	case []any:
		for _, element := range v {
			if hasOddTime(element) {
				return true
			}
		}
	case map[string]any:
		for _, element := range v {
			if hasOddTime(element) {
				return true
			}
		}
	}
	return false
}
