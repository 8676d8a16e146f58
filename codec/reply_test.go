package codec

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func errorReply(t testing.TB) []byte {
	t.Helper()
	r := Reply{ID: NewID(0x0102030405060708, 9), Status: StatusHandlerError, Text: "no\n", Body: []byte("body")}
	b, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplyLayout holds the encoder to the table in format.go.
func TestReplyLayout(t *testing.T) {
	want := fromHex(t,
		"52", "01", "01", "00", // magic, version, status handler error, flags
		"0102030405060708 0000000000000009", // id
		"0003", "0000",                      // text length, reserved
		"00000004", // body length
		"6e6f0a",   // no\n
		"626f6479", // body
	)
	if got := errorReply(t); !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

func TestReplyText(t *testing.T) {
	for name, row := range map[string]struct{ in, out string }{
		"plain":             {"no such invoice: № 7\n\tat line 1", "no such invoice: № 7\n\tat line 1"},
		"at the limit":      {strings.Repeat("a", MaxText), strings.Repeat("a", MaxText)},
		"over it":           {strings.Repeat("a", MaxText+1), strings.Repeat("a", MaxText)},
		"rune at the edge":  {strings.Repeat("a", MaxText-1) + "€", strings.Repeat("a", MaxText-1)},
		"rune fits exactly": {strings.Repeat("a", MaxText-3) + "€€", strings.Repeat("a", MaxText-3) + "€"},
		"four-byte rune":    {strings.Repeat("a", MaxText-3) + "😀", strings.Repeat("a", MaxText-3)},
		"not UTF-8":         {"a\xffb", "a\ufffdb"},
		"half a rune":       {"a\xe2\x82", "a\ufffd\ufffd"},
		"replacement rune":  {"a\ufffdb", "a\ufffdb"},
		"escape sequence":   {"\x1b[2Jgone\r", "\ufffd[2Jgone\ufffd"},
		"C1 control":        {"\u009b2J", "\ufffd2J"},
		"only tails":        {strings.Repeat("\x80", MaxText+1), strings.Repeat("\ufffd", MaxText/3)},
		"grows when clean":  {strings.Repeat("\xff", MaxText), strings.Repeat("\ufffd", MaxText/3)},
	} {
		t.Run(name, func(t *testing.T) {
			r := Reply{Status: StatusHandlerError, Text: row.in, Body: []byte("body")}
			b, err := r.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) != r.Size() {
				t.Errorf("Size %d, appended %d", r.Size(), len(b))
			}
			got, err := ParseReply(b, MaxBody)
			if err != nil {
				t.Fatal(err)
			}
			if got.Text != row.out || string(got.Body) != "body" {
				t.Errorf("got %q %q", got.Text, got.Body)
			}
			if !utf8.ValidString(got.Text) {
				t.Error("not UTF-8")
			}
		})
	}
}

func TestReplyAppend(t *testing.T) {
	r := Reply{Text: strings.Repeat("x", 2*MaxText), Body: []byte("body")}
	if r.Size() != ReplyOverhead+4 {
		t.Errorf("the largest reply adds %d, ReplyOverhead is %d", r.Size()-4, ReplyOverhead)
	}
	b, err := (&Reply{Status: 10}).Append([]byte("dst"))
	wantError(t, err, ErrStatus, "malformed reply: status: unknown status 10, known are 0 to 9")
	if string(b) != "dst" {
		t.Errorf("dst became %q", b)
	}
	b, err = (&Reply{Body: make([]byte, MaxBody+1)}).Append([]byte("dst"))
	wantError(t, err, new(*LimitError), "body is 16777217 bytes, the limit is 16777216 bytes")
	if string(b) != "dst" {
		t.Errorf("dst became %q", b)
	}
}

func TestParseReplyRefuses(t *testing.T) {
	at := func(offset int, value byte) func([]byte) []byte {
		return func(b []byte) []byte { b[offset] = value; return b }
	}
	for name, row := range map[string]struct {
		change func([]byte) []byte
		want   any
		text   string
	}{
		"nothing":         {func([]byte) []byte { return nil }, ErrNotReply, ""},
		"foreign":         {func([]byte) []byte { return []byte("Right") }, ErrNotReply, ""},
		"an envelope":     {at(0, envelopeMagic), ErrNotReply, ""},
		"version 2":       {at(1, 2), new(*VersionError), "reply has format version 2"},
		"status":          {at(2, 10), ErrStatus, "unknown status 10"},
		"flags":           {at(3, 0x80), ErrFlags, "flags: unknown flags 0x80"},
		"reserved high":   {at(22, 1), ErrFlags, "reserved bytes"},
		"reserved low":    {at(23, 1), ErrFlags, "reserved bytes"},
		"text over limit": {func(b []byte) []byte { b[20], b[21] = 0x10, 0x01; return b }, new(*LimitError), "text is 4097 bytes, the limit is 4096 bytes"},
		"text not UTF-8":  {at(28, 0xff), new(*FormatError), "malformed reply: text: not UTF-8"},
		"text control":    {at(28, 0x1b), new(*FormatError), "control characters"},
		"header cut":      {func(b []byte) []byte { return b[:27] }, ErrTruncated, "27 bytes of 28"},
		"body cut":        {func(b []byte) []byte { return b[:len(b)-1] }, ErrTruncated, "34 bytes of 35"},
		"trailing":        {func(b []byte) []byte { return append(b, 0) }, ErrTrailing, "36 bytes, its lengths say 35"},
		"body over limit": {at(27, 101), new(*LimitError), "body is 101 bytes, the limit is 100 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseReply(row.change(errorReply(t)), 100)
			wantError(t, err, row.want, row.text)
			if r.ID != (ID{}) || r.Status != 0 || r.Text != "" || r.Body != nil {
				t.Errorf("a reply beside the error: %+v", r)
			}
		})
	}
}

func TestParseReplyEveryCut(t *testing.T) {
	b := errorReply(t)
	for n := range b {
		if _, err := ParseReply(b[:n:n], MaxBody); err == nil {
			t.Errorf("the first %d bytes of %d parse", n, len(b))
		}
	}
}

func TestParseReplyAliases(t *testing.T) {
	b := errorReply(t)
	r, err := ParseReply(b, MaxBody)
	if err != nil {
		t.Fatal(err)
	}
	if &r.Body[0] != &b[len(b)-len(r.Body)] || cap(r.Body) != len(r.Body) {
		t.Error("Body does not alias exactly the input's tail")
	}
	clear(b)
	if r.Text != "no\n" {
		t.Errorf("Text aliases the input: %q", r.Text)
	}
}

func TestReplyAllocs(t *testing.T) {
	r := Reply{Status: StatusHandlerError, Text: strings.Repeat("é", 3000), Body: make([]byte, 64<<10)}
	buf := make([]byte, 0, r.Size())
	if n := testing.AllocsPerRun(100, func() { buf, _ = r.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append into enough room allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParseReply(buf, MaxBody); err != nil {
			t.Fatal(err)
		}
	}); n != 1 {
		t.Errorf("ParseReply allocates %v times, want once for the text", n)
	}
}
