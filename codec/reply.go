package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Reply answers a Send, Request or Ping.
type Reply struct {
	ID     ID // of the message answered
	Status Status
	Text   string // human-readable, at most 4 KiB; longer is cut at Append on a rune boundary
	Body   []byte // nil when empty, after ParseReply
}

// Size is the encoded size in bytes.
func (r *Reply) Size() int { return replyHeader + len(wireText(r.Text)) + len(r.Body) }

// Append appends the encoding to dst and returns the extended slice. It
// allocates nothing when dst has room for Size more bytes and Text needs no
// cleaning. On error dst is returned as it was.
//
// Text is made fit for a terminal and a log: what is not UTF-8 and the control
// characters, except tab and line feed, become U+FFFD, and what is over MaxText
// is cut on a rune boundary.
//
// Errors: *LimitError for a body over MaxBody, ErrStatus.
func (r *Reply) Append(dst []byte) ([]byte, error) {
	b, err := r.appendHead(dst, len(r.Body))
	if err != nil {
		return dst, err
	}
	return append(b, r.Body...), nil
}

// AppendHead appends what Append would, without the body at its end, so that the
// body need not be copied: head and body together are the reply.
func (r *Reply) AppendHead(dst []byte) ([]byte, error) { return r.appendHead(dst, 0) }

// appendHead leaves room for n more bytes.
func (r *Reply) appendHead(dst []byte, n int) ([]byte, error) {
	if err := r.checkStatus(); err != nil {
		return dst, err
	}
	if len(r.Body) > MaxBody {
		return dst, &LimitError{What: "body", Size: len(r.Body), Limit: MaxBody}
	}
	text := wireText(r.Text)
	b := slices.Grow(dst, replyHeader+len(text)+n)
	b = append(b, replyMagic, Version, byte(r.Status), 0)
	b = append(b, r.ID[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Body)))
	return append(b, text...), nil
}

// ParseReply decodes b. Body aliases b, and its capacity ends with it. maxBody
// is the largest body accepted, in bytes; MaxBody is the limit above it.
//
// Errors: ErrNotReply when b is not ours, *VersionError, *LimitError for a body
// over the limit, and *FormatError for everything else, with the reason inside:
// ErrTruncated, ErrTrailing, ErrStatus, ErrFlags, a *LimitError for the text,
// or that the text has what Append would have replaced.
func ParseReply(b []byte, maxBody int) (Reply, error) {
	if err := checkPreamble(b, replyMagic, "reply", ErrNotReply); err != nil {
		return Reply{}, err
	}
	if len(b) < replyHeader {
		return Reply{}, checkLength("reply", len(b), replyHeader)
	}
	r := Reply{Status: Status(b[2]), ID: ID(b[4:20])}
	if err := r.checkStatus(); err != nil {
		return Reply{}, err
	}
	if err := checkReserved("reply", "flags", uint16(b[3])); err != nil {
		return Reply{}, err
	}
	if err := checkReserved("reply", "reserved bytes", binary.BigEndian.Uint16(b[22:])); err != nil {
		return Reply{}, err
	}
	textLen := int(binary.BigEndian.Uint16(b[20:]))
	if textLen > MaxText {
		return Reply{}, &FormatError{What: "reply", Err: &LimitError{What: "text", Size: textLen, Limit: MaxText}}
	}
	bodyLen := binary.BigEndian.Uint32(b[24:])
	if err := checkBody(bodyLen, maxBody); err != nil {
		return Reply{}, err
	}
	body := replyHeader + textLen
	if err := checkLength("reply", len(b), uint64(body)+uint64(bodyLen)); err != nil {
		return Reply{}, err
	}
	r.Text = string(b[replyHeader:body])
	if unfit(r.Text) >= 0 {
		return Reply{}, &FormatError{What: "reply", Field: "text", Err: errText}
	}
	if bodyLen > 0 {
		r.Body = b[body:len(b):len(b)]
	}
	return r, nil
}

var errText = errors.New("not UTF-8, or with control characters other than tab and line feed")

func (r *Reply) checkStatus() error {
	if r.Status.known() {
		return nil
	}
	return &FormatError{What: "reply", Field: "status",
		Err: fmt.Errorf("%w %d, known are 0 to %d", ErrStatus, uint8(r.Status), uint8(StatusMalformed))}
}

// wireText returns s as it travels. It allocates only when s must be cleaned.
func wireText(s string) string {
	s = cut(s, MaxText)
	if unfit(s) < 0 {
		return s
	}
	return cut(strings.Map(func(c rune) rune {
		if isUnfit(c) {
			return utf8.RuneError
		}
		return c // Map hands out RuneError for what is not UTF-8
	}, s), MaxText)
}

// cut shortens s to at most n bytes, on a rune boundary where s is UTF-8.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	// A rune has four bytes at most: look back three, else s is no UTF-8 here.
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// unfit returns the offset of the first thing in s that may not travel, or -1.
func unfit(s string) int {
	for i, c := range s {
		if isUnfit(c) {
			return i
		}
		if c == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

func isUnfit(c rune) bool { return unicode.IsControl(c) && c != '\t' && c != '\n' }
