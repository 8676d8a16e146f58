package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// MinSize is the size of the smallest message, in bytes.
const MinSize = headerSize + sumSize

const (
	headerSize = 32
	sumSize    = 4
	magic      = 0x63686173 // "chas"
)

// Message says of itself who sent it, on which path, as which of its messages, and
// of what it is the echo. Its bytes are filled up to Size with what follows from
// that, and end with a checksum: no part of it can be lost, doubled or exchanged
// for a part of another without notice.
type Message struct {
	Sender uint32
	Path   uint32 // the connection it was made for; the History of one that is sent again knows better
	Seq    uint64 // from 1, of this sender
	Size   int    // at least MinSize
	Echo   uint32 // of a reply: the Sum of the request; otherwise 0
	Sum    uint32 // set by Append and Parse
}

// Append appends m's bytes to b, and sets m.Sum.
func (m *Message) Append(b []byte) []byte {
	m.Size = max(m.Size, MinSize)
	start := len(b)
	b = slices.Grow(b, m.Size)
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, m.Sender)
	b = binary.BigEndian.AppendUint32(b, m.Path)
	b = binary.BigEndian.AppendUint32(b, m.Echo)
	b = binary.BigEndian.AppendUint64(b, m.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	x := uint64(m.Sender)<<40 ^ m.Seq<<1 ^ uint64(m.Echo)<<8 | 1
	for end := start + m.Size - sumSize; len(b) < end; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if end-len(b) >= 8 {
			b = binary.BigEndian.AppendUint64(b, x)
		} else {
			b = append(b, byte(x))
		}
	}
	m.Sum = crc32.Checksum(b[start:], crc32.MakeTable(crc32.Castagnoli))
	return binary.BigEndian.AppendUint32(b, m.Sum)
}

var errAltered = errors.New("not the bytes of any message that was sent")

// Parse reads a message and checks all of its bytes but those of the filling that
// the checksum covers.
func Parse(b []byte) (Message, error) {
	if len(b) < MinSize || binary.BigEndian.Uint32(b) != magic {
		return Message{}, fmt.Errorf("%w: %d bytes, beginning with %x", errAltered, len(b), b[:min(len(b), headerSize)])
	}
	m := Message{
		Sender: binary.BigEndian.Uint32(b[4:]),
		Path:   binary.BigEndian.Uint32(b[8:]),
		Echo:   binary.BigEndian.Uint32(b[12:]),
		Seq:    binary.BigEndian.Uint64(b[16:]),
		Sum:    binary.BigEndian.Uint32(b[len(b)-sumSize:]),
	}
	if size := binary.BigEndian.Uint64(b[24:]); size != uint64(len(b)) {
		return Message{}, fmt.Errorf("%w: %d bytes of a message of %d, sender %d, number %d", errAltered, len(b), size, m.Sender, m.Seq)
	}
	m.Size = len(b)
	if sum := crc32.Checksum(b[:len(b)-sumSize], crc32.MakeTable(crc32.Castagnoli)); sum != m.Sum {
		return Message{}, fmt.Errorf("%w: %d bytes with the wrong checksum, sender %d, number %d", errAltered, len(b), m.Sender, m.Seq)
	}
	return m, nil
}

// Reply is the echo of m, of size bytes.
func (m *Message) Reply(size int) *Message {
	return &Message{Sender: m.Sender, Path: m.Path, Seq: m.Seq, Size: size, Echo: m.Sum}
}

// Answers reports whether m is the reply to request.
func (m *Message) Answers(request *Message) bool {
	return m.Sender == request.Sender && m.Path == request.Path && m.Seq == request.Seq && m.Echo == request.Sum
}
