package codec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// fromHex reads the hex of a layout, written field by field.
func fromHex(t testing.TB, fields ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(fields, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sendEnvelope is a valid envelope, encoded.
func sendEnvelope(t testing.TB) []byte {
	t.Helper()
	e := goldenEnvelopes["envelope-send"]
	b, err := e.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEnvelopeLayout holds the encoder to the table in format.go.
func TestEnvelopeLayout(t *testing.T) {
	want := fromHex(t,
		"50", "01", "02", "00", // magic, version, kind send, flags
		"0102030405060708 0000000000000009", // id
		"a0b0c0d0e0f01020",                  // to instance
		"000005dc",                          // 1500 ms
		"05", "05", "06", "00",              // lengths, reserved
		"00000005",     // body length
		"6e6f646531",   // node1
		"6e6f646532",   // node2
		"6f7264657273", // orders
		"68656c6c6f",   // hello
	)
	got := sendEnvelope(t)
	if !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

func TestEnvelopeTimeout(t *testing.T) {
	const most = math.MaxUint32 * time.Millisecond
	for _, row := range []struct{ in, out time.Duration }{
		{0, 0},
		{-time.Hour, time.Millisecond},
		{math.MinInt64, time.Millisecond},
		{1, time.Millisecond},
		{time.Millisecond, time.Millisecond},
		{time.Millisecond + 1, 2 * time.Millisecond},
		{most - 1, most},
		{most, most},
		{most + 1, most},
		{math.MaxInt64, most},
	} {
		e := Envelope{Kind: KindSend, From: "a", To: "b", Timeout: row.in}
		b, err := e.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseEnvelope(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got.Timeout != row.out {
			t.Errorf("%v became %v, want %v", row.in, got.Timeout, row.out)
		}
	}
}

func TestEnvelopeAppend(t *testing.T) {
	e := goldenEnvelopes["envelope-send"]
	dst := append(make([]byte, 0, 1024), "before"...)
	b, err := e.Append(dst)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("before")) || len(b) != len("before")+e.Size() || &b[0] != &dst[0] {
		t.Errorf("appended %q, Size %d", b, e.Size())
	}
	body := strings.Repeat("x", 10)
	for kind := KindPush; kind <= KindBroadcast; kind++ {
		e := Envelope{Kind: kind, From: strings.Repeat("n", MaxName), To: strings.Repeat("n", MaxName),
			Topic: strings.Repeat("t", MaxTopic), Body: []byte(body)}
		if e.Size() != EnvelopeOverhead+len(body) {
			t.Errorf("the largest %v adds %d, EnvelopeOverhead is %d", kind, e.Size()-len(body), EnvelopeOverhead)
		}
		if _, err := e.Append(nil); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

func TestEnvelopeAppendRefuses(t *testing.T) {
	valid := Envelope{Kind: KindSend, From: "node1", To: "node2", Topic: "t"}
	for name, row := range map[string]struct {
		change func(*Envelope)
		want   any // an error for errors.Is, or a pointer for errors.As
		text   string
	}{
		"kind 0":          {func(e *Envelope) { e.Kind = 0 }, ErrKind, "unknown kind 0"},
		"kind 7":          {func(e *Envelope) { e.Kind = 7 }, ErrKind, "unknown kind 7"},
		"no sender":       {func(e *Envelope) { e.From = "" }, new(*NameError), "is empty"},
		"no receiver":     {func(e *Envelope) { e.To = "" }, new(*NameError), "is empty"},
		"sender's name":   {func(e *Envelope) { e.From = "a b" }, new(*NameError), `has ' ' at byte 1`},
		"receiver's name": {func(e *Envelope) { e.To = "a\n" }, new(*NameError), `has '\n' at byte 1`},
		"long name":       {func(e *Envelope) { e.To = strings.Repeat("a", 64) }, new(*LimitError), "is 64 bytes long; allowed: 1 to 63 bytes"},
		"gossip to nobody valid": {func(e *Envelope) { e.Kind, e.To = KindGossip, "-" },
			new(*NameError), `begins with '-'`},
		"topic":      {func(e *Envelope) { e.Topic = "a\x00" }, new(*NameError), "has U+0000 at byte 1"},
		"long topic": {func(e *Envelope) { e.Topic = strings.Repeat("a", 256) }, new(*LimitError), "is 256 bytes long; allowed: 0 to 255 bytes"},
		"body":       {func(e *Envelope) { e.Body = make([]byte, MaxBody+1) }, new(*LimitError), "body is 16777217 bytes, the limit is 16777216 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			e := valid
			row.change(&e)
			b, err := e.Append([]byte("dst"))
			wantError(t, err, row.want, row.text)
			if string(b) != "dst" {
				t.Errorf("dst became %q", b)
			}
		})
	}
}

// wantError asserts an error by kind and by a part of its text.
func wantError(t *testing.T, err error, want any, text string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if sentinel, ok := want.(error); ok {
		if !errors.Is(err, sentinel) {
			t.Errorf("error %q is not %q", err, sentinel)
		}
	} else if !errors.As(err, want) {
		t.Errorf("error %T %q is not a %T", err, err, want)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q does not say %q", err, text)
	}
}

func TestParseEnvelopeRefuses(t *testing.T) {
	at := func(offset int, value byte) func([]byte) []byte {
		return func(b []byte) []byte { b[offset] = value; return b }
	}
	for name, row := range map[string]struct {
		change func([]byte) []byte
		want   any
		text   string
	}{
		"nothing":         {func([]byte) []byte { return nil }, ErrNotEnvelope, ""},
		"one byte":        {func(b []byte) []byte { return b[:1] }, ErrNotEnvelope, ""},
		"foreign":         {func([]byte) []byte { return []byte("hello") }, ErrNotEnvelope, ""},
		"foreign with P":  {func([]byte) []byte { return []byte("PING") }, ErrNotEnvelope, ""},
		"a reply":         {at(0, replyMagic), ErrNotEnvelope, ""},
		"version 0":       {at(1, 0), new(*VersionError), "envelope has format version 0, this release reads version 1 only"},
		"version 2":       {at(1, 2), new(*VersionError), "version 2"},
		"kind 0":          {at(2, 0), ErrKind, "malformed envelope: kind: unknown kind 0"},
		"kind 7":          {at(2, 7), ErrKind, "unknown kind 7"},
		"flags":           {at(3, 1), ErrFlags, "flags: unknown flags 0x1"},
		"reserved":        {at(35, 1), ErrFlags, "reserved byte"},
		"no sender":       {func(b []byte) []byte { b[32] = 0; return append(b[:40], b[45:]...) }, new(*NameError), "node name"},
		"no receiver":     {func(b []byte) []byte { b[33] = 0; return append(b[:45], b[50:]...) }, new(*NameError), "node name"},
		"sender's name":   {at(41, ' '), new(*NameError), `node name "n de1" has ' ' at byte 1`},
		"receiver's name": {at(45, '.'), new(*NameError), `begins with '.'`},
		"topic":           {at(50, 0x1b), new(*NameError), `topic "\x1brders" has U+001B at byte 0`},
		"topic not UTF-8": {at(50, 0xff), new(*NameError), "is not UTF-8 at byte 0"},
		"header cut":      {func(b []byte) []byte { return b[:39] }, ErrTruncated, "39 bytes of 40"},
		"body cut":        {func(b []byte) []byte { return b[:len(b)-1] }, ErrTruncated, "60 bytes of 61"},
		"trailing":        {func(b []byte) []byte { return append(b, 0) }, ErrTrailing, "62 bytes, its lengths say 61"},
		"body over limit": {at(39, 101), new(*LimitError), "body is 101 bytes, the limit is 100 bytes"},
		"huge body":       {at(36, 0xff), new(*LimitError), "body is 4278190085 bytes, the limit is 100 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := ParseEnvelope(row.change(sendEnvelope(t)), 100)
			wantError(t, err, row.want, row.text)
			if e.Kind != 0 || e.From != "" || e.Body != nil {
				t.Errorf("an envelope beside the error: %+v", e)
			}
		})
	}
}

// TestEnvelopeToNobody: only what is for all may leave its receiver out.
func TestEnvelopeToNobody(t *testing.T) {
	for kind := KindPush; kind <= KindBroadcast; kind++ {
		forAll := kind == KindGossip || kind == KindBroadcast
		e := Envelope{Kind: kind, From: "node1"}
		if b, err := e.Append(nil); (err == nil) != forAll {
			t.Errorf("%v: %v", kind, err)
		} else if forAll {
			if got, err := ParseEnvelope(b, 0); err != nil || got.To != "" {
				t.Errorf("%v: to %q, %v", kind, got.To, err)
			}
		}
	}
}

// TestParseEnvelopeEveryCut: no prefix of a message is a message.
func TestParseEnvelopeEveryCut(t *testing.T) {
	b := sendEnvelope(t)
	for n := range b {
		if _, err := ParseEnvelope(b[:n:n], MaxBody); err == nil {
			t.Errorf("the first %d bytes of %d parse", n, len(b))
		}
	}
}

func TestParseEnvelopeLimit(t *testing.T) {
	b := sendEnvelope(t) // its body has 5 bytes
	for limit, ok := range map[int]bool{-1: false, 0: false, 4: false, 5: true, math.MaxInt: true} {
		if _, err := ParseEnvelope(b, limit); (err == nil) != ok {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	e := Envelope{Kind: KindPush, From: "a", To: "b", Body: make([]byte, MaxBody)}
	b, err := e.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseEnvelope(b, math.MaxInt); err != nil {
		t.Errorf("a body of MaxBody: %v", err)
	}
	b = append(b, 0)
	b[39] = 1
	var limit *LimitError
	if _, err := ParseEnvelope(b, math.MaxInt); !errors.As(err, &limit) || limit.Limit != MaxBody {
		t.Errorf("a body over MaxBody: %v", err)
	}
}

// TestParseEnvelopeAliases: Body is the input's memory, but appending to it
// cannot reach what lies behind.
func TestParseEnvelopeAliases(t *testing.T) {
	b := sendEnvelope(t)
	e, err := ParseEnvelope(b[:len(b):cap(b)], MaxBody)
	if err != nil {
		t.Fatal(err)
	}
	if &e.Body[0] != &b[len(b)-len(e.Body)] || cap(e.Body) != len(e.Body) {
		t.Error("Body does not alias exactly the input's tail")
	}
	clear(b)
	if e.From != "node1" || e.To != "node2" || e.Topic != "orders" {
		t.Errorf("strings alias the input: %+v", e)
	}
}

func TestEnvelopeID(t *testing.T) {
	b := sendEnvelope(t)
	want := goldenEnvelopes["envelope-send"].ID
	b[2] = 99 // a kind that the parser refuses
	if id, ok := EnvelopeID(b[:20]); !ok || id != want {
		t.Errorf("%v, %v", id, ok)
	}
	for name, b := range map[string][]byte{"short": b[:19], "foreign": []byte(strings.Repeat("x", 40)), "version": {0x50, 2, 39: 0}} {
		if id, ok := EnvelopeID(b); ok || id != (ID{}) {
			t.Errorf("%s: %v, %v", name, id, ok)
		}
	}
}

func TestEnvelopeAllocs(t *testing.T) {
	e := goldenEnvelopes["envelope-request"]
	e.Body = make([]byte, 64<<10)
	buf := make([]byte, 0, e.Size())
	if n := testing.AllocsPerRun(100, func() { buf, _ = e.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append into enough room allocates %v times", n)
	}
	// Once; twice under the race detector, where slices.Grow keeps its temporary.
	if n := testing.AllocsPerRun(100, func() { _, _ = e.Append(nil) }); n > 2 {
		t.Errorf("Append to nil allocates %v times, want once", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParseEnvelope(buf, MaxBody); err != nil {
			t.Fatal(err)
		}
	}); n != 1 {
		t.Errorf("ParseEnvelope allocates %v times, want once for the strings", n)
	}
}

func TestID(t *testing.T) {
	id := NewID(0x0102030405060708, 0x090a0b0c0d0e0f10)
	if id.Instance() != 0x0102030405060708 || id.Seq() != 0x090a0b0c0d0e0f10 {
		t.Errorf("%x %x", id.Instance(), id.Seq())
	}
	if id.String() != "0102030405060708090a0b0c0d0e0f10" {
		t.Error(id)
	}
}

func TestKindAndStatusNames(t *testing.T) {
	seen := map[string]bool{}
	for k := KindPush; k <= KindBroadcast; k++ {
		seen[k.String()] = true
	}
	for s := StatusOK; s <= StatusMalformed; s++ {
		seen[s.String()] = true
	}
	if len(seen) != 16 || seen[""] {
		t.Errorf("names are missing or double: %v", seen)
	}
	if got := Kind(0).String() + " " + Kind(7).String() + " " + Status(10).String(); got != "kind(0) kind(7) status(10)" {
		t.Error(got)
	}
}

// TestHeadWriter: it checks what changes, and forgets nothing that was wrong.
func TestHeadWriter(t *testing.T) {
	good := Envelope{Kind: KindSend, From: "node1", To: "node2", Topic: "orders", Body: []byte("x")}
	var w HeadWriter
	for name, change := range map[string]func(e *Envelope){
		"kind":  func(e *Envelope) { e.Kind = 99 },
		"from":  func(e *Envelope) { e.From = "node 1" },
		"to":    func(e *Envelope) { e.To = "" },
		"topic": func(e *Envelope) { e.Topic = "\xff" },
		"body":  func(e *Envelope) { e.Body = make([]byte, MaxBody+1) },
	} {
		bad := good
		change(&bad)
		for _, e := range []Envelope{good, bad, bad, good} {
			want, wantErr := e.AppendHead([]byte("before"))
			got, err := w.Append([]byte("before"), &e)
			if !bytes.Equal(got, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Errorf("%s: %q, %v; want %q, %v", name, got, err, want, wantErr)
			}
		}
	}
	if _, err := new(HeadWriter).Append(nil, &Envelope{}); err == nil {
		t.Error("an empty envelope passes")
	}
}
