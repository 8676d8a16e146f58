package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// Envelope is one message on its way.
type Envelope struct {
	Kind       Kind
	ID         ID
	ToInstance uint64        // receiver's instance the sender means; 0: any
	Timeout    time.Duration // time left for the receiver, whole milliseconds on the wire (rounded up); 0: none
	From       string        // sender's node name, a claim until links are authenticated
	To         string        // receiver's node name; may be empty for KindGossip and KindBroadcast
	Topic      string        // 0..255 bytes, see ValidTopic
	Body       []byte        // nil when empty, after ParseEnvelope
}

// Size is the encoded size in bytes.
func (e *Envelope) Size() int {
	return envelopeHeader + len(e.From) + len(e.To) + len(e.Topic) + len(e.Body)
}

// Append appends the encoding to dst and returns the extended slice. It
// allocates nothing when dst has room for Size more bytes. On error dst is
// returned as it was.
//
// A Timeout is rounded up to a whole millisecond, so that it is never turned
// into "none"; what is already over travels as one millisecond, and what is
// over 49 days as the field's maximum (4,294,967,295 ms).
//
// Errors: *LimitError for a body over MaxBody, *NameError for From, To and
// Topic (wrapping a *LimitError when one is too long), ErrKind.
func (e *Envelope) Append(dst []byte) ([]byte, error) {
	if err := e.check(); err != nil {
		return dst, err
	}
	b, err := e.appendHead(dst, len(e.Body))
	if err != nil {
		return dst, err
	}
	return append(b, e.Body...), nil
}

// AppendHead appends what Append would, without the body at its end, so that the
// body need not be copied: head and body together are the message.
func (e *Envelope) AppendHead(dst []byte) ([]byte, error) {
	if err := e.check(); err != nil {
		return dst, err
	}
	return e.appendHead(dst, 0)
}

// HeadWriter is Envelope.AppendHead for one who sends many alike: names and topic that
// are those of the envelope before are not checked again. The zero value is ready to be
// used, by one goroutine at a time.
type HeadWriter struct {
	kind            Kind // 0: there was none
	from, to, topic string
}

// Append is e.AppendHead(dst).
func (w *HeadWriter) Append(dst []byte, e *Envelope) ([]byte, error) {
	if w.kind == 0 || e.Kind != w.kind || e.From != w.from || e.To != w.to || e.Topic != w.topic {
		if err := e.check(); err != nil {
			return dst, err
		}
		w.kind, w.from, w.to, w.topic = e.Kind, e.From, e.To, e.Topic
	}
	return e.appendHead(dst, 0)
}

// appendHead leaves room for n more bytes. The envelope has been checked.
func (e *Envelope) appendHead(dst []byte, n int) ([]byte, error) {
	if len(e.Body) > MaxBody {
		return dst, &LimitError{What: "body", Size: len(e.Body), Limit: MaxBody}
	}
	b := slices.Grow(dst, envelopeHeader+len(e.From)+len(e.To)+len(e.Topic)+n)
	h := b[len(b) : len(b)+envelopeHeader]
	h[0], h[1], h[2], h[3] = envelopeMagic, Version, byte(e.Kind), 0
	copy(h[4:], e.ID[:])
	binary.BigEndian.PutUint64(h[20:], e.ToInstance)
	binary.BigEndian.PutUint32(h[28:], wireTimeout(e.Timeout))
	h[32], h[33], h[34], h[35] = byte(len(e.From)), byte(len(e.To)), byte(len(e.Topic)), 0
	binary.BigEndian.PutUint32(h[36:], uint32(len(e.Body)))
	b = append(b[:len(b)+envelopeHeader], e.From...)
	b = append(b, e.To...)
	return append(b, e.Topic...), nil
}

// ParseEnvelope decodes b. Body aliases b, and its capacity ends with it.
// maxBody is the largest body accepted, in bytes; MaxBody is the limit above it.
//
// Errors: ErrNotEnvelope when b is not ours, *VersionError, *LimitError for a
// body over the limit, and *FormatError for everything else, with the reason
// inside: ErrTruncated, ErrTrailing, ErrKind, ErrFlags or a *NameError.
func ParseEnvelope(b []byte, maxBody int) (Envelope, error) {
	if err := checkPreamble(b, envelopeMagic, "envelope", ErrNotEnvelope); err != nil {
		return Envelope{}, err
	}
	if len(b) < envelopeHeader {
		return Envelope{}, checkLength("envelope", len(b), envelopeHeader)
	}
	if err := checkReserved("envelope", "flags", uint16(b[3])); err != nil {
		return Envelope{}, err
	}
	if err := checkReserved("envelope", "reserved byte", uint16(b[35])); err != nil {
		return Envelope{}, err
	}
	bodyLen := binary.BigEndian.Uint32(b[36:])
	if err := checkBody(bodyLen, maxBody); err != nil {
		return Envelope{}, err
	}
	from := envelopeHeader + int(b[32])
	to := from + int(b[33])
	topic := to + int(b[34])
	if err := checkLength("envelope", len(b), uint64(topic)+uint64(bodyLen)); err != nil {
		return Envelope{}, err
	}
	e := Envelope{
		Kind:       Kind(b[2]),
		ID:         ID(b[4:20]),
		ToInstance: binary.BigEndian.Uint64(b[20:]),
		Timeout:    time.Duration(binary.BigEndian.Uint32(b[28:])) * time.Millisecond,
	}
	if bodyLen > 0 {
		e.Body = b[topic:len(b):len(b)]
	}
	// One string for the three: one allocation instead of three.
	text := string(b[envelopeHeader:topic])
	e.From = text[:from-envelopeHeader]
	e.To = text[from-envelopeHeader : to-envelopeHeader]
	e.Topic = text[to-envelopeHeader:]
	if err := e.check(); err != nil {
		if _, ok := err.(*FormatError); !ok {
			err = &FormatError{What: "envelope", Err: err}
		}
		return Envelope{}, err
	}
	return e, nil
}

// EnvelopeID returns the id of an envelope that ParseEnvelope refused, so that
// the refusal can be answered. ok is false when b is not an envelope of this
// version or ends before its id does.
func EnvelopeID(b []byte) (id ID, ok bool) {
	if len(b) < 20 || b[0] != envelopeMagic || b[1] != Version {
		return ID{}, false
	}
	return ID(b[4:20]), true
}

// check holds both directions to the same rules, but for the body.
func (e *Envelope) check() error {
	if !e.Kind.known() {
		return &FormatError{What: "envelope", Field: "kind",
			Err: fmt.Errorf("%w %d, known are 1 to %d", ErrKind, uint8(e.Kind), uint8(KindBroadcast))}
	}
	if err := ValidName(e.From); err != nil {
		return err
	}
	if e.To != "" || !e.Kind.forAll() {
		if err := ValidName(e.To); err != nil {
			return err
		}
	}
	return ValidTopic(e.Topic)
}

// checkPreamble tells our messages from foreign ones and from other versions.
func checkPreamble(b []byte, magic byte, what string, foreign error) error {
	if len(b) < 2 || b[0] != magic || b[1] >= versionEnd {
		return foreign
	}
	if b[1] != Version {
		return &VersionError{What: what, Version: uint64(b[1])}
	}
	return nil
}

func checkBody(size uint32, limit int) error {
	limit = min(max(limit, 0), MaxBody)
	if uint64(size) > uint64(limit) {
		return &LimitError{What: "body", Size: int(min(uint64(size), math.MaxInt)), Limit: limit}
	}
	return nil
}

func wireTimeout(d time.Duration) uint32 {
	if d == 0 {
		return 0
	}
	if d < 0 {
		return 1
	}
	ms := d / time.Millisecond
	if d%time.Millisecond != 0 {
		ms++
	}
	return uint32(min(ms, math.MaxUint32))
}
