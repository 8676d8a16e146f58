package codec

import (
	"encoding/json"
	"fmt"
)

// Codec turns Go values into message bodies and back. Implementations may be
// used concurrently. Unmarshal takes a pointer, decodes exactly one value, and
// keeps no reference to its input.
//
// The codecs here have no state: codec.Msgpack{}, codec.JSON{}, codec.Raw{}.
type Codec interface {
	Name() string // such as "msgpack", for flags and topics
	Marshal(v any) ([]byte, error)
	Unmarshal(b []byte, v any) error
}

// JSON is encoding/json. Bytes after the value are an error.
type JSON struct{}

// Name returns "json".
func (JSON) Name() string { return "json" }

// Marshal is json.Marshal.
func (JSON) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal is json.Unmarshal.
func (JSON) Unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// Raw passes bytes and strings through, for bodies that are already encoded.
type Raw struct{}

// TypeError says that a codec cannot carry values of a type.
type TypeError struct {
	Codec   string // the codec's name
	Type    string // the Go type that was given
	Allowed string // what can be given
}

func (e *TypeError) Error() string {
	return fmt.Sprintf("codec %s cannot carry %s; allowed: %s", e.Codec, e.Type, e.Allowed)
}

// Name returns "raw".
func (Raw) Name() string { return "raw" }

// Marshal returns the bytes of v, a []byte or a string. A []byte is returned as
// it is, not copied. *TypeError for any other type.
func (Raw) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	return nil, &TypeError{Codec: "raw", Type: fmt.Sprintf("%T", v), Allowed: "[]byte, string"}
}

// Unmarshal copies b to what v points to, a []byte or a string. *TypeError for
// any other type and for a nil pointer.
func (Raw) Unmarshal(b []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		if v != nil {
			*v = append([]byte(nil), b...)
			return nil
		}
	case *string:
		if v != nil {
			*v = string(b)
			return nil
		}
	}
	return &TypeError{Codec: "raw", Type: fmt.Sprintf("%T", v), Allowed: "*[]byte, *string that are not nil"}
}
