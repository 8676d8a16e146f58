package codec

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
	"time"
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

// texts are those of an envelope that was accepted: all is the three in a row.
type texts struct{ all, from, to, topic string }

// NewParser returns a Parser that remembers nothing yet.
func NewParser() *Parser { return &Parser{seed: maphash.MakeSeed()} }

// Envelope is ParseEnvelope into e. On error *e is the zero Envelope.
func (p *Parser) Envelope(e *Envelope, b []byte, maxBody int) error {
	if len(b) < envelopeHeader {
		return p.strictly(e, b, maxBody, nil)
	}
	from, to := int(b[32]), int(b[33])
	end := envelopeHeader + from + to + int(b[34])
	if len(b) < end {
		return p.strictly(e, b, maxBody, nil)
	}
	all := b[envelopeHeader:end]
	slot := &p.slots[maphash.Bytes(p.seed, all)%uint64(len(p.slots))]
	known, kind, body := slot.Load(), Kind(b[2]), len(b)-end
	if known == nil || known.all != string(all) || len(known.from) != from || len(known.to) != to ||
		b[0] != envelopeMagic || b[1] != Version || b[3] != 0 || b[35] != 0 ||
		!kind.known() || to == 0 && !kind.forAll() ||
		binary.BigEndian.Uint32(b[36:]) != uint32(body) || body > min(maxBody, MaxBody) {
		return p.strictly(e, b, maxBody, slot)
	}
	e.Kind = kind
	e.ID = ID(b[4:20])
	e.ToInstance = binary.BigEndian.Uint64(b[20:])
	e.Timeout = time.Duration(binary.BigEndian.Uint32(b[28:])) * time.Millisecond
	e.From, e.To, e.Topic = known.from, known.to, known.topic
	e.Body = nil
	if body > 0 {
		e.Body = b[end:len(b):len(b)]
	}
	return nil
}

// strictly is for what is not like something before: it knows all the rules, and
// leaves what follows them in slot.
func (p *Parser) strictly(e *Envelope, b []byte, maxBody int, slot *atomic.Pointer[texts]) (err error) {
	*e, err = ParseEnvelope(b, maxBody)
	if err == nil {
		all := string(b[envelopeHeader : len(b)-len(e.Body)])
		from, to := len(e.From), len(e.From)+len(e.To)
		e.From, e.To, e.Topic = all[:from], all[from:to], all[to:]
		slot.Store(&texts{all, e.From, e.To, e.Topic})
	}
	return err
}
