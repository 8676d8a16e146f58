package codec

import (
	"encoding/binary"
	"encoding/hex"
)

// ID names one message: the sender's instance id (8 bytes, big endian) and a
// sequence number (8 bytes, big endian) that the sender never uses twice.
type ID [16]byte

// NewID returns the id of message seq of instance.
func NewID(instance, seq uint64) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], instance)
	binary.BigEndian.PutUint64(id[8:], seq)
	return id
}

// Instance is the sender's instance id.
func (id ID) Instance() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// Seq is the message's number within the sender's instance.
func (id ID) Seq() uint64 { return binary.BigEndian.Uint64(id[8:]) }

// String returns the id as 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }
