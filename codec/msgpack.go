package codec

import (
	"fmt"
	"reflect"

	msgpack "github.com/hashicorp/go-msgpack/v2/codec"
)

// Msgpack is msgpack in the current specification, by go-msgpack: strings are
// str, byte slices bin, times the timestamp extension, map keys are sorted and
// integers take their shortest form, so equal values give equal bytes. Struct
// fields follow the tag `codec`, else `json`.
//
// What is decoded into an empty interface becomes a string, []byte, bool,
// int64, uint64, float64, time.Time, []any, map[string]any or nil.
//
// Unmarshal believes no length: a body is walked before it is decoded, and what
// is not exactly one value, has a length beyond its end, is nested more than 100
// deep or has extensions other than the timestamp is a *FormatError. What is
// then allocated is in proportion to the body and the Go type: a byte for a
// []byte or string, but up to some hundred bytes for each small map in an empty
// interface. Decode what strangers send into a struct.
//
// An integer that does not fit its field is an error, but for one over 2^63-1
// that is decoded into an int64, which go-msgpack wraps.
type Msgpack struct{}

// Name returns "msgpack".
func (Msgpack) Name() string { return "msgpack" }

// Marshal encodes v. A struct that contains itself through a pointer is an
// error; a map or slice that contains itself overflows the stack, so don't. A
// function becomes nil, a channel an array of what waits in it. A method of v
// that panics is an error, here and in Unmarshal.
func (Msgpack) Marshal(v any) ([]byte, error) { return marshalMsgpack(v) }

// Unmarshal decodes b into what v points to; see Msgpack for what is refused.
// Well-formed bytes that do not fit the Go type are an error of go-msgpack, and
// v may then be decoded in part. Keys that a struct does not have are passed
// over, but for the empty key, which go-msgpack cannot look up.
func (Msgpack) Unmarshal(b []byte, v any) error {
	if rv := reflect.ValueOf(v); rv.Kind() != reflect.Pointer || rv.IsNil() {
		return &TypeError{Codec: "msgpack", Type: fmt.Sprintf("%T", v), Allowed: "a pointer that is not nil"}
	}
	if err := scanMsgpack(b); err != nil {
		return &FormatError{What: "msgpack", Err: err}
	}
	if err := msgpack.NewDecoderBytes(b, msgpackHandle).Decode(v); err != nil {
		return fmt.Errorf("decode into %T: %w", v, err)
	}
	return nil
}

func marshalMsgpack(v any) ([]byte, error) {
	var b []byte
	if err := msgpack.NewEncoderBytes(&b, msgpackHandle).Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// msgpackHandle is set up once and then only read; the library's cache of types
// inside it has a lock of its own.
var msgpackHandle = func() *msgpack.MsgpackHandle {
	h := new(msgpack.MsgpackHandle)
	h.WriteExt = true // the current specification: str, bin and ext are different things
	h.RawToString = false
	h.PositiveIntUnsigned = true // the shortest form
	h.Canonical = true
	h.CheckCircularRef = true
	h.MapType = reflect.TypeFor[map[string]any]()
	// What the target held before has no say in what is decoded.
	h.MapValueReset = true
	h.SliceElementReset = true
	h.InterfaceReset = true
	return h
}()
