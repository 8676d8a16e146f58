package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

type order struct {
	ID    uint64            `codec:"id" json:"id"`
	Name  string            `codec:"name" json:"name"`
	Data  []byte            `codec:"data" json:"data"`
	Parts []order           `codec:"parts" json:"parts"`
	Notes map[string]string `codec:"notes" json:"notes"`
	Price float64           `codec:"price" json:"price"`
	Open  bool              `codec:"open" json:"open"`
	At    time.Time         `codec:"at" json:"at"`
}

var anOrder = order{ID: 1 << 63, Name: strings.Repeat("n", 40), Data: []byte{0, 0xff}, Price: 1.5, Open: true,
	Parts: []order{{ID: 1, Name: "part"}}, Notes: map[string]string{"b": "2", "a": "1"},
	At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}

func TestCodecsRoundTrip(t *testing.T) {
	for _, c := range []Codec{Msgpack{}, JSON{}} {
		t.Run(c.Name(), func(t *testing.T) {
			b, err := c.Marshal(anOrder)
			if err != nil {
				t.Fatal(err)
			}
			var got order
			if err := c.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, anOrder) {
				t.Errorf("\n got %+v\nwant %+v", got, anOrder)
			}
			again, err := c.Marshal(got)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("equal values, different bytes: %v\n%x\n%x", err, again, b)
			}
			if err := c.Unmarshal(append(b, b[0]), &got); err == nil {
				t.Error("trailing bytes are taken")
			}
			if err := c.Unmarshal(nil, &got); err == nil {
				t.Error("nothing is taken")
			}
			if err := c.Unmarshal(b, nil); err == nil {
				t.Error("nil as a target is taken")
			}
			if err := c.Unmarshal(b, (*order)(nil)); err == nil {
				t.Error("a nil pointer as a target is taken")
			}
			if err := c.Unmarshal(b, got); err == nil {
				t.Error("a value as a target is taken")
			}
		})
	}
}

func TestRaw(t *testing.T) {
	for _, v := range []any{[]byte("x\x00"), "x\x00"} {
		b, err := Raw{}.Marshal(v)
		if err != nil || string(b) != "x\x00" {
			t.Errorf("%T: %q, %v", v, b, err)
		}
	}
	in := []byte("body")
	var text string
	var data []byte
	if err := (Raw{}).Unmarshal(in, &text); err != nil {
		t.Fatal(err)
	}
	if err := (Raw{}).Unmarshal(in, &data); err != nil {
		t.Fatal(err)
	}
	clear(in)
	if text != "body" || string(data) != "body" {
		t.Errorf("%q %q", text, data)
	}
	var typeErr *TypeError
	_, err := Raw{}.Marshal(7)
	if !errors.As(err, &typeErr) || typeErr.Type != "int" || err.Error() != "codec raw cannot carry int; allowed: []byte, string" {
		t.Error(err)
	}
	for _, v := range []any{nil, text, new(int), (*string)(nil), (*[]byte)(nil)} {
		if err := (Raw{}).Unmarshal([]byte("x"), v); !errors.As(err, &typeErr) {
			t.Errorf("into a %T: %v", v, err)
		}
	}
	if (Raw{}).Name() != "raw" {
		t.Error("name")
	}
}

// TestMsgpackBytes pins the choices among msgpack's forms.
func TestMsgpackBytes(t *testing.T) {
	for _, row := range []struct {
		in   any
		want string
		out  any // in an empty interface
	}{
		{nil, "c0", nil},
		{true, "c3", true},
		{int64(-1), "ff", int64(-1)},
		{7, "07", int64(7)},
		{200, "ccc8", uint64(200)},
		{1.5, "cb3ff8000000000000", 1.5},
		{"é", "a2c3a9", "é"},
		{strings.Repeat("a", 40), "d928" + strings.Repeat("61", 40), strings.Repeat("a", 40)},
		{[]byte{0xff}, "c401ff", []byte{0xff}},
		{[]string{"a"}, "91a161", []any{"a"}},
		{map[string]int{"b": 2, "a": 1}, "82a16101a16202", map[string]any{"a": int64(1), "b": int64(2)}},
		{map[string]any{"b": "2", "a": nil}, "82a161c0a162a132", map[string]any{"a": nil, "b": "2"}},
		{struct {
			A int `codec:"a"`
		}{1}, "81a16101", map[string]any{"a": int64(1)}},
		{time.Unix(1, 0).UTC(), "d6ff00000001", time.Unix(1, 0).UTC()},
	} {
		b, err := Msgpack{}.Marshal(row.in)
		if err != nil || !bytes.Equal(b, fromHex(t, row.want)) {
			t.Errorf("%#v: %x, %v, want %s", row.in, b, err, row.want)
		}
		var out any
		if err := (Msgpack{}).Unmarshal(b, &out); err != nil || !reflect.DeepEqual(out, row.out) {
			t.Errorf("%x: %#v, %v, want %#v", b, out, err, row.out)
		}
	}
}

func TestMsgpackRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		b    []byte
		want any
		text string
	}{
		"nothing":                    {nil, ErrTruncated, "malformed msgpack: truncated"},
		"never used":                 {fromHex(t, "c1"), ErrType, "0xc1"},
		"trailing":                   {fromHex(t, "01 01"), ErrTrailing, "1 after the end"},
		"trailing deep":              {fromHex(t, "91 91 01 01"), ErrTrailing, "1 after the end"},
		"string too long":            {fromHex(t, "dbffffffff 61"), ErrTruncated, "1 bytes left of 4294967295"},
		"bin too long":               {fromHex(t, "c6ffffffff 61"), ErrTruncated, "1 bytes left of 4294967295"},
		"array too long":             {fromHex(t, "ddffffffff 01"), ErrTruncated, "4294967295 values in 1 bytes"},
		"map too long":               {fromHex(t, "dfffffffff 01"), ErrTruncated, "8589934590 values in 1 bytes"},
		"map without last":           {fromHex(t, "82 a16101 a162"), ErrTruncated, ""},
		"bin without length":         {fromHex(t, "c4"), ErrTruncated, ""},
		"ext without length":         {fromHex(t, "c7"), ErrTruncated, ""},
		"ext without type":           {fromHex(t, "d4"), ErrTruncated, ""},
		"length cut":                 {fromHex(t, "dd ffff"), ErrTruncated, ""},
		"integer cut":                {fromHex(t, "cf 01"), ErrTruncated, ""},
		"float cut":                  {fromHex(t, "cb 01"), ErrTruncated, ""},
		"extension":                  {fromHex(t, "d4 05 01"), ErrType, "extension 5 of 1 bytes"},
		"extension like a timestamp": {fromHex(t, "d6 05 00000001"), ErrType, "extension 5 of 4 bytes"},
		"extension 32":               {fromHex(t, "c9 ffffffff 05"), ErrType, "extension 5"},
		"extension cut":              {fromHex(t, "d6 ff 01"), ErrTruncated, ""},
		"odd timestamp":              {fromHex(t, "d8 ff", strings.Repeat("00", 16)), ErrType, "extension -1 of 16 bytes"},
		"too deep":                   {append(bytes.Repeat([]byte{0x91}, maxMsgpackDepth+1), 0), new(*FormatError), "nested more than 100 deep"},
		"very deep":                  {bytes.Repeat([]byte{0x91}, 1<<20), new(*FormatError), "nested more than 100 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			var v any
			wantError(t, (Msgpack{}).Unmarshal(row.b, &v), row.want, row.text)
			if v != nil {
				t.Errorf("a value beside the error: %v", v)
			}
		})
	}
	deepest := append(bytes.Repeat([]byte{0x91}, maxMsgpackDepth), 0)
	var v any
	if err := (Msgpack{}).Unmarshal(deepest, &v); err != nil {
		t.Errorf("the deepest that is allowed: %v", err)
	}
	var small int8
	if err := (Msgpack{}).Unmarshal(fromHex(t, "cd0100"), &small); err == nil {
		t.Errorf("256 in an int8: %d", small)
	}
	var o order
	if err := (Msgpack{}).Unmarshal(fromHex(t, "81 a26964 a178"), &o); err == nil {
		t.Errorf("a string in a number: %+v", o)
	}
	if _, err := (Msgpack{}).Marshal(func() any { type loop struct{ L *loop }; l := &loop{}; l.L = l; return l }()); err == nil {
		t.Error("a value that contains itself is encoded")
	}
	if _, err := (Msgpack{}).Marshal(panics{}); err == nil || !strings.Contains(err.Error(), "ouch") {
		t.Errorf("a value that panics: %v", err)
	}
	if err := (Msgpack{}).Unmarshal(fromHex(t, "c40101"), new(panics)); err == nil || !strings.Contains(err.Error(), "ouch") {
		t.Errorf("a target that panics: %v", err)
	}
}

type panics struct{}

func (panics) MarshalBinary() ([]byte, error) { panic("ouch") }
func (*panics) UnmarshalBinary([]byte) error  { panic("ouch") }

// TestMsgpackForgetsTheOld: what the target held has no say.
func TestMsgpackForgetsTheOld(t *testing.T) {
	var v any = &order{}
	if err := (Msgpack{}).Unmarshal(fromHex(t, "a178"), &v); err != nil || v != "x" {
		t.Errorf("%#v, %v", v, err)
	}
	byName := map[string]*order{"x": {Name: "old"}}
	if err := (Msgpack{}).Unmarshal(fromHex(t, "81 a178 81 a26964 07"), &byName); err != nil || !reflect.DeepEqual(byName["x"], &order{ID: 7}) {
		t.Errorf("%+v, %v", byName["x"], err)
	}
	list := []order{{Name: "old"}}
	if err := (Msgpack{}).Unmarshal(fromHex(t, "91 81 a26964 07"), &list); err != nil || !reflect.DeepEqual(list, []order{{ID: 7}}) {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestMsgpackDoesNotAlias(t *testing.T) {
	b, err := Msgpack{}.Marshal([]any{[]byte("bytes"), "string", map[string]any{"key": []byte("deep")}})
	if err != nil {
		t.Fatal(err)
	}
	var loose any
	if err := (Msgpack{}).Unmarshal(b, &loose); err != nil {
		t.Fatal(err)
	}
	var typed []any
	if err := (Msgpack{}).Unmarshal(b, &typed); err != nil {
		t.Fatal(err)
	}
	var raw []byte
	c := fromHex(t, "c403 616263")
	if err := (Msgpack{}).Unmarshal(c, &raw); err != nil {
		t.Fatal(err)
	}
	clear(b)
	clear(c)
	want := []any{[]byte("bytes"), "string", map[string]any{"key": []byte("deep")}}
	if !reflect.DeepEqual(loose, want) || !reflect.DeepEqual(typed, want) || string(raw) != "abc" {
		t.Errorf("changed with the input: %q %q %q", loose, typed, raw)
	}
}

// TestMsgpackAllocatesInProportion: hostile lengths cost an error, and the worst
// that valid bytes can cost is bounded.
func TestMsgpackAllocatesInProportion(t *testing.T) {
	targets := map[string]func() any{
		"any":     func() any { return new(any) },
		"bytes":   func() any { return new([]byte) },
		"string":  func() any { return new(string) },
		"strings": func() any { return new([]string) },
		"orders":  func() any { return new([]order) },
		"map":     func() any { return new(map[string]string) },
	}
	for _, hex := range []string{"dbffffffff", "c6ffffffff", "ddffffffff", "dfffffffff", "c9ffffffffff",
		"dd7fffffff dd7fffffff", "91 dd7fffffff", "81 a161 dbffffffff"} {
		b := fromHex(t, hex)
		for name, target := range targets {
			v := target()
			if n := allocated(func() { _ = (Msgpack{}).Unmarshal(b, v) }); n > 4<<10 {
				t.Errorf("%s into %s: %d bytes allocated", hex, name, n)
			}
		}
	}

	const size = 128 << 10
	body := func(element ...byte) []byte {
		n := size / len(element)
		return append(binary.BigEndian.AppendUint32([]byte{0xdd}, uint32(n)), bytes.Repeat(element, n)...)
	}
	for name, row := range map[string]struct {
		b      []byte
		target func() any
		factor uint64
	}{
		"a string": {append(binary.BigEndian.AppendUint32([]byte{0xdb}, size), make([]byte, size)...), targets["string"], 2},
		"bytes":    {append(binary.BigEndian.AppendUint32([]byte{0xc6}, size), make([]byte, size)...), targets["bytes"], 3},
		"nils":     {body(0xc0), targets["any"], 256},
		"maps":     {body(0x81, 0xa0, 0xc0), targets["any"], 256},
		"nested":   {body(append(bytes.Repeat([]byte{0x91}, maxMsgpackDepth-2), 0)...), targets["any"], 256},
	} {
		v := row.target()
		var err error
		n := allocated(func() { err = (Msgpack{}).Unmarshal(row.b, v) })
		t.Logf("%s: %d times the input", name, n/size)
		if err != nil || n > row.factor*size {
			t.Errorf("%s: %v, %d bytes allocated for %d", name, err, n, len(row.b))
		}
	}
}
