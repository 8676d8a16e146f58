package broadcast

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// The state that two nodes exchange now and then (push/pull) is the gossip that
// each has seen lately, so that whoever missed a message gets it after all:
//
//	version   1 byte, 1
//	count     2 bytes, number of records, at most 256
//	record    age       4 bytes, milliseconds since it was broadcast, at most 120,000
//	          length    2 bytes
//	          envelope  length bytes, see codec.Envelope
//
// Integers are big endian; nothing follows the last record. A node without
// recent gossip sends no bytes at all. The age travels with the message, so that
// it ends everywhere at about the same time: a copy does not start a new life at
// each node, and nobody's memory of ids has to outlast it.
const (
	stateVersion = 1
	stateHeader  = 3
	recordHeader = 6

	maxRecent      = 256              // messages
	maxRecentBytes = 64 << 10         // bytes of state
	maxRecentAge   = 2 * time.Minute  // since it was broadcast
	ageUnit        = time.Millisecond // of the age on the wire
)

// remembered is one message of the recent gossip.
type remembered struct {
	born    time.Time // when it was broadcast, by the local clock
	payload []byte    // the envelope; never changed
}

// recent holds what push/pull offers, oldest first. It is not safe for
// concurrent use.
type recent struct {
	msgs  []remembered
	bytes int // of their records
}

// add keeps a message, and drops the oldest ones for it when there are too many.
func (r *recent) add(born time.Time, payload []byte) {
	i := len(r.msgs)
	for i > 0 && r.msgs[i-1].born.After(born) {
		i--
	}
	r.msgs = slices.Insert(r.msgs, i, remembered{born, payload})
	r.bytes += recordHeader + len(payload)
	n := 0
	for bytes := r.bytes; len(r.msgs)-n > maxRecent || bytes > maxRecentBytes-stateHeader; n++ {
		bytes -= recordHeader + len(r.msgs[n].payload)
	}
	r.drop(n)
}

// prune drops what is too old.
func (r *recent) prune(now time.Time) {
	n := 0
	for n < len(r.msgs) && now.Sub(r.msgs[n].born) >= maxRecentAge {
		n++
	}
	r.drop(n)
}

func (r *recent) drop(n int) {
	for _, m := range r.msgs[:n] {
		r.bytes -= recordHeader + len(m.payload)
	}
	r.msgs = slices.Delete(r.msgs, 0, n)
}

// encode returns the state, nil when there is nothing to offer.
func (r *recent) encode(now time.Time) []byte {
	r.prune(now)
	if len(r.msgs) == 0 {
		return nil
	}
	b := make([]byte, 0, stateHeader+r.bytes)
	b = append(b, stateVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.msgs)))
	for _, m := range r.msgs {
		age := max(0, now.Sub(m.born)) / ageUnit
		b = binary.BigEndian.AppendUint32(b, uint32(age))
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.payload)))
		b = append(b, m.payload...)
	}
	return b
}

// record is one message of another node's state.
type record struct {
	age     time.Duration
	env     codec.Envelope
	payload []byte // of env
}

// parseState decodes another node's state, all of it or nothing. The records
// alias b.
func parseState(b []byte) ([]record, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) > maxRecentBytes {
		return nil, fmt.Errorf("state: %w", &codec.LimitError{What: "push/pull state", Size: len(b), Limit: maxRecentBytes})
	}
	if b[0] != stateVersion {
		return nil, fmt.Errorf("state: version %d, want %d", b[0], stateVersion)
	}
	if len(b) < stateHeader {
		return nil, fmt.Errorf("state: %d bytes are too short", len(b))
	}
	n := int(binary.BigEndian.Uint16(b[1:]))
	if n == 0 || n > maxRecent {
		return nil, fmt.Errorf("state: %d messages, want 1 to %d", n, maxRecent)
	}
	b = b[stateHeader:]
	records := make([]record, 0, min(n, len(b)/recordHeader))
	for i := range n {
		if len(b) < recordHeader {
			return nil, fmt.Errorf("state: message %d of %d is cut off", i+1, n)
		}
		ms, size := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint16(b[4:]))
		b = b[recordHeader:]
		if len(b) < size {
			return nil, fmt.Errorf("state: message %d of %d is cut off", i+1, n)
		}
		age := time.Duration(ms) * ageUnit
		if age > maxRecentAge {
			return nil, fmt.Errorf("state: message %d of %d is %v old, at most %v are allowed", i+1, n, age, maxRecentAge)
		}
		payload := b[:size:size]
		env, err := parseGossip(payload)
		if err != nil {
			return nil, fmt.Errorf("state: message %d of %d: %w", i+1, n, err)
		}
		records = append(records, record{age, env, payload})
		b = b[size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("state: %d bytes too many", len(b))
	}
	return records, nil
}
