package codec

import (
	"encoding/binary"
	"fmt"
)

// msgpackReader reads the few msgpack types that metadata consists of, from a
// stranger's bytes: no length is believed before the bytes are there, nothing
// is converted from one type to another, and there is no recursion.
type msgpackReader struct {
	b []byte // what is left
}

// take removes n bytes.
func (r *msgpackReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.b)) {
		return nil, fmt.Errorf("%w: %d bytes left of %d", ErrTruncated, len(r.b), n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

// bigEndian removes an integer of n bytes, n being 1, 2, 4 or 8.
func (r *msgpackReader) bigEndian(n uint64) (uint64, error) {
	b, err := r.take(n)
	if err != nil {
		return 0, err
	}
	switch n {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), nil
	}
	return binary.BigEndian.Uint64(b), nil
}

// next removes the byte that tells the type.
func (r *msgpackReader) next() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// uint reads an integer that is not negative, in any of its forms.
func (r *msgpackReader) uint() (uint64, error) {
	c, err := r.next()
	if err != nil {
		return 0, err
	}
	switch {
	case c <= 0x7f:
		return uint64(c), nil
	case c >= 0xcc && c <= 0xcf: // uint 8, 16, 32, 64
		return r.bigEndian(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3: // int 8, 16, 32, 64
		size := uint64(1) << (c - 0xd0)
		v, err := r.bigEndian(size)
		if err == nil && v>>(size*8-1) != 0 {
			return 0, fmt.Errorf("%w: a negative integer", ErrType)
		}
		return v, err
	}
	return 0, typeError(c, "an integer")
}

// isStr tells whether a string comes next.
func (r *msgpackReader) isStr() bool {
	if len(r.b) == 0 {
		return false
	}
	c := r.b[0]
	return c&0xe0 == 0xa0 || c >= 0xd9 && c <= 0xdb
}

func (r *msgpackReader) str() (string, error) {
	c, err := r.next()
	if err != nil {
		return "", err
	}
	var n uint64
	switch {
	case c&0xe0 == 0xa0:
		n = uint64(c & 0x1f)
	case c >= 0xd9 && c <= 0xdb: // str 8, 16, 32
		if n, err = r.bigEndian(1 << (c - 0xd9)); err != nil {
			return "", err
		}
	default:
		return "", typeError(c, "a string")
	}
	b, err := r.take(n)
	return string(b), err
}

func (r *msgpackReader) arrayLen() (uint64, error) {
	c, err := r.next()
	if err != nil {
		return 0, err
	}
	switch {
	case c&0xf0 == 0x90:
		return uint64(c & 0x0f), nil
	case c == 0xdc, c == 0xdd:
		return r.bigEndian(2 << (c - 0xdc))
	}
	return 0, typeError(c, "an array")
}

func (r *msgpackReader) mapLen() (uint64, error) {
	c, err := r.next()
	if err != nil {
		return 0, err
	}
	switch {
	case c&0xf0 == 0x80:
		return uint64(c & 0x0f), nil
	case c == 0xde, c == 0xdf:
		return r.bigEndian(2 << (c - 0xde))
	}
	return 0, typeError(c, "a map")
}

// stringMap reads a map whose keys are strings; value reads what belongs to a
// valid key. An empty map is nil.
func (r *msgpackReader) stringMap(
	valid func(key string) error, value func(r *msgpackReader, key string) (string, error),
) (map[string]string, error) {
	n, err := r.mapLen()
	if err != nil || n == 0 {
		return nil, err
	}
	if 2*n > uint64(len(r.b)) { // each key and value takes a byte at least
		return nil, fmt.Errorf("%w: %d entries in %d bytes", ErrTruncated, n, len(r.b))
	}
	m := make(map[string]string, n)
	for range n {
		key, err := r.str()
		if err != nil {
			return nil, err
		}
		if err := valid(key); err != nil {
			return nil, err
		}
		if _, found := m[key]; found {
			return nil, fmt.Errorf("%w %q", ErrDuplicate, key)
		}
		if m[key], err = value(r, key); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return m, nil
}

// end refuses what follows the last value.
func (r *msgpackReader) end() error {
	if len(r.b) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d after the end", ErrTrailing, len(r.b))
}

func typeError(c byte, want string) error {
	return fmt.Errorf("%w: msgpack type %#x instead of %s", ErrType, c, want)
}
