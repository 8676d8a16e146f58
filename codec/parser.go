package codec

import (
	"hash/maphash"
	"sync/atomic"
)

// Parser parses envelopes and remembers their names and topics: an envelope with
// those of one before costs no allocation and no validation of them. A receiver
// keeps one for all its connections. NewParser makes one; its methods may be
// called concurrently.
//
// It remembers as many triples of sender, receiver and topic as it has slots, 256
// of at most 381 bytes: one that takes another's slot displaces it.
type Parser struct {
	seed  maphash.Seed // a stranger cannot know which texts share a slot
	slots [256]atomic.Pointer[texts]
}

// texts are those of an envelope that was accepted: parts of all.
type texts struct{ all, from, to, topic string }

// NewParser returns a Parser that remembers nothing yet.
func NewParser() *Parser { return &Parser{seed: maphash.MakeSeed()} }

// Envelope is ParseEnvelope.
func (p *Parser) Envelope(b []byte, maxBody int) (Envelope, error) {
	return parseEnvelope(b, maxBody, p)
}

// find returns the slot for texts whose first from bytes are the sender's name
// and whose next to bytes are the receiver's, and what is in it if it is these.
func (p *Parser) find(all []byte, from, to byte) (slot *atomic.Pointer[texts], known *texts) {
	if p == nil {
		return nil, nil
	}
	slot = &p.slots[maphash.Bytes(p.seed, all)%uint64(len(p.slots))]
	known = slot.Load()
	if known == nil || known.all != string(all) || len(known.from) != int(from) || len(known.to) != int(to) {
		return slot, nil
	}
	return slot, known
}
