package codec

import "fmt"

// maxMsgpackDepth bounds the nesting of arrays and maps in a msgpack value.
const maxMsgpackDepth = 100

// scanMsgpack walks the structure of b without building anything: it must be
// exactly one msgpack value, with every length covered by bytes that are there,
// nested at most maxMsgpackDepth deep, and without extensions other than the
// timestamp. After it, a decoder can believe the lengths in b.
func scanMsgpack(b []byte) error {
	r := msgpackReader{b: b}
	var open [maxMsgpackDepth + 1]uint64 // values still to come at each depth
	open[0] = 1
	for depth := 0; ; {
		for open[depth] == 0 {
			if depth == 0 {
				return r.end()
			}
			depth--
		}
		open[depth]--
		children, err := r.skip()
		if err != nil {
			return err
		}
		if children == 0 {
			continue
		}
		if children > uint64(len(r.b)) { // each takes a byte at least
			return fmt.Errorf("%w: %d values in %d bytes", ErrTruncated, children, len(r.b))
		}
		if depth == maxMsgpackDepth {
			return fmt.Errorf("nested more than %d deep", maxMsgpackDepth)
		}
		depth++
		open[depth] = children
	}
}

// skip passes over one value, and of an array or map over its head only; it
// returns how many values follow inside.
func (r *msgpackReader) skip() (children uint64, err error) {
	c, err := r.next()
	if err != nil {
		return 0, err
	}
	switch {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // fixint, nil, false, true
		return 0, nil
	case c&0xf0 == 0x80: // fixmap
		return 2 * uint64(c&0x0f), nil
	case c&0xf0 == 0x90: // fixarray
		return uint64(c & 0x0f), nil
	case c&0xe0 == 0xa0: // fixstr
		_, err = r.take(uint64(c & 0x1f))
		return 0, err
	}
	switch c {
	case 0xc4, 0xc5, 0xc6: // bin 8, 16, 32
		return 0, r.skipCounted(1 << (c - 0xc4))
	case 0xd9, 0xda, 0xdb: // str 8, 16, 32
		return 0, r.skipCounted(1 << (c - 0xd9))
	case 0xca, 0xcb: // float 32, 64
		_, err = r.take(4 << (c - 0xca))
	case 0xcc, 0xcd, 0xce, 0xcf: // uint 8, 16, 32, 64
		_, err = r.take(1 << (c - 0xcc))
	case 0xd0, 0xd1, 0xd2, 0xd3: // int 8, 16, 32, 64
		_, err = r.take(1 << (c - 0xd0))
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // fixext 1, 2, 4, 8, 16
		return 0, r.skipExt(1 << (c - 0xd4))
	case 0xc7, 0xc8, 0xc9: // ext 8, 16, 32
		n, err := r.bigEndian(1 << (c - 0xc7))
		if err != nil {
			return 0, err
		}
		return 0, r.skipExt(n)
	case 0xdc, 0xdd: // array 16, 32
		return r.bigEndian(2 << (c - 0xdc))
	case 0xde, 0xdf: // map 16, 32
		n, err := r.bigEndian(2 << (c - 0xde))
		return 2 * n, err
	default: // 0xc1 is never used
		return 0, fmt.Errorf("%w: msgpack type %#x", ErrType, c)
	}
	return 0, err
}

// skipCounted passes over bytes that follow their own count of size bytes.
func (r *msgpackReader) skipCounted(size uint64) error {
	n, err := r.bigEndian(size)
	if err != nil {
		return err
	}
	_, err = r.take(n)
	return err
}

// skipExt passes over an extension of n bytes.
func (r *msgpackReader) skipExt(n uint64) error {
	c, err := r.next()
	if err != nil {
		return err
	}
	if c != 0xff || n != 4 && n != 8 && n != 12 {
		return fmt.Errorf("%w: extension %d of %d bytes, only timestamps are known", ErrType, int8(c), n)
	}
	_, err = r.take(n)
	return err
}
