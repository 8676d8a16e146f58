package codec

import (
	"errors"
	"fmt"
	"strconv"
)

// What was given to a parser is not ours at all: most likely a foreign program
// that speaks plain SP. Nothing more is known of it.
var (
	ErrNotEnvelope = errors.New("not a Parley envelope")
	ErrNotReply    = errors.New("not a Parley reply")
)

// Reasons inside a [*FormatError], for errors.Is.
var (
	ErrTruncated = errors.New("truncated")      // shorter than its lengths say
	ErrTrailing  = errors.New("trailing bytes") // longer than its lengths say
	ErrKind      = errors.New("unknown kind")
	ErrStatus    = errors.New("unknown status")
	ErrFlags     = errors.New("unknown flags")
	ErrDuplicate = errors.New("duplicate key")
	ErrType      = errors.New("wrong type") // of a msgpack element
)

// FormatError says that bytes which begin like ours do not follow the format,
// or that a value cannot be written in it.
type FormatError struct {
	What  string // "envelope", "reply", "metadata" or "msgpack"
	Field string // such as "kind" or "from"; may be empty
	Err   error  // the reason: wraps one of the sentinels, a *NameError or a *LimitError
}

func (e *FormatError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("malformed %s: %v", e.What, e.Err)
	}
	return fmt.Sprintf("malformed %s: %s: %v", e.What, e.Field, e.Err)
}

func (e *FormatError) Unwrap() error { return e.Err }

// VersionError says that bytes are in a version of the format that this
// package does not read.
type VersionError struct {
	What    string // "envelope", "reply" or "metadata"
	Version uint64 // the version met
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this release reads version %d only", e.What, e.Version, Version)
}

// LimitError says that something is larger than its limit.
type LimitError struct {
	What  string // "body", "topic", "metadata", ...
	Size  int    // bytes
	Limit int    // bytes
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s is %d bytes, the limit is %d bytes", e.What, e.Size, e.Limit)
}

// NameError says that a name, topic, tag or endpoint is not a valid one, and
// what is allowed. It wraps a *LimitError when the length is at fault.
type NameError struct {
	What    string // "node name", "service name", "topic", "tag key", "tag value" or "endpoint"
	Value   string // as given
	Reason  string // what is wrong with it
	Allowed string // what would be right

	limit int // bytes; 0 when the length is not at fault
}

func (e *NameError) Error() string {
	return fmt.Sprintf("%s %s %s; allowed: %s", e.What, quote(e.Value), e.Reason, e.Allowed)
}

func (e *NameError) Unwrap() error {
	if e.limit == 0 {
		return nil
	}
	return &LimitError{What: e.What, Size: len(e.Value), Limit: e.limit}
}

// quote makes a stranger's text fit for a log line.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

// checkLength compares a message's length with what its header asks for.
func checkLength(what string, have int, want uint64) error {
	switch {
	case uint64(have) < want:
		return &FormatError{What: what, Err: fmt.Errorf("%w: %d bytes of %d", ErrTruncated, have, want)}
	case uint64(have) > want:
		return &FormatError{What: what, Err: fmt.Errorf("%w: %d bytes, its lengths say %d", ErrTrailing, have, want)}
	}
	return nil
}

// checkReserved refuses bytes that this version does not define.
func checkReserved(what, field string, v uint16) error {
	if v == 0 {
		return nil
	}
	return &FormatError{What: what, Field: field, Err: fmt.Errorf("%w %#x", ErrFlags, v)}
}
