package codec

import (
	"errors"
	"fmt"
	"strconv"
)

// Metadata is what a node says of itself in gossip.
type Metadata struct {
	Name     string            // node name, see ValidName
	Instance uint64            // random, new at each start, never 0
	Epoch    uint64            // grows with each start under this name
	Leaving  bool              // set before a graceful leave
	Observer bool              // a short-lived client that others do not count on
	Tags     map[string]string // see ValidTag; nil when empty, after ParseMetadata
	Services map[string]string // service name -> ":PORT" (host is the member's own) or a URL; nil when empty, after ParseMetadata
}

const (
	flagLeaving  = 1 << 0
	flagObserver = 1 << 1
	flagsKnown   = flagLeaving | flagObserver
)

// metadataElements is the length of the array; see Version.
const metadataElements = 7

var errInstance = errors.New("0 is no instance")

// Append appends the encoding to dst (msgpack, keys sorted, so equal values
// give equal bytes) and returns the extended slice. On error dst is returned as
// it was.
//
// Errors: *LimitError when the encoding is over MaxMetadata, with size and
// limit; *NameError for a name, tag or endpoint that is not valid; *FormatError
// when Instance is 0.
func (m *Metadata) Append(dst []byte) ([]byte, error) {
	if err := ValidName(m.Name); err != nil {
		return dst, err
	}
	if m.Instance == 0 {
		return dst, &FormatError{What: "metadata", Field: "instance", Err: errInstance}
	}
	tags := make(map[string]string, len(m.Tags)) // never nil: it would become a msgpack nil
	for key, value := range m.Tags {
		if err := ValidTag(key, value); err != nil {
			return dst, err
		}
		tags[key] = value
	}
	services := make(map[string]any, len(m.Services))
	for name, endpoint := range m.Services {
		if err := ValidService(name); err != nil {
			return dst, err
		}
		if err := ValidEndpoint(endpoint); err != nil {
			return dst, err
		}
		if port, ok := ownPort(endpoint); ok {
			services[name] = port
		} else {
			services[name] = endpoint
		}
	}
	var flags uint8
	if m.Leaving {
		flags |= flagLeaving
	}
	if m.Observer {
		flags |= flagObserver
	}
	b, err := marshalMsgpack([metadataElements]any{uint8(Version), flags, m.Name, m.Instance, m.Epoch, tags, services})
	if err != nil {
		return dst, &FormatError{What: "metadata", Err: err}
	}
	if len(b) > MaxMetadata {
		return dst, &LimitError{What: "metadata", Size: len(b), Limit: MaxMetadata}
	}
	return append(dst, b...), nil
}

// ParseMetadata decodes and validates what a stranger claims. Nothing of the
// result aliases b.
//
// Errors: *LimitError when b is over MaxMetadata; *VersionError; *FormatError
// for everything else, with the field and the reason inside: ErrType,
// ErrTruncated, ErrTrailing, ErrFlags, ErrDuplicate or a *NameError.
func ParseMetadata(b []byte) (Metadata, error) {
	if len(b) > MaxMetadata {
		return Metadata{}, &LimitError{What: "metadata", Size: len(b), Limit: MaxMetadata}
	}
	var m Metadata
	field, err := m.parse(&msgpackReader{b: b})
	if err == nil {
		return m, nil
	}
	if _, ok := err.(*VersionError); ok {
		return Metadata{}, err
	}
	return Metadata{}, &FormatError{What: "metadata", Field: field, Err: err}
}

// parse returns the field at fault beside the error.
func (m *Metadata) parse(r *msgpackReader) (field string, err error) {
	n, err := r.arrayLen()
	if err != nil {
		return "array", err
	}
	if n == 0 {
		return "array", fmt.Errorf("%w: empty", ErrTruncated)
	}
	version, err := r.uint()
	if err != nil {
		return "version", err
	}
	if version != Version {
		return "version", &VersionError{What: "metadata", Version: version}
	}
	if n != metadataElements {
		return "array", fmt.Errorf("%d elements instead of %d", n, metadataElements)
	}
	flags, err := r.uint()
	if err != nil {
		return "flags", err
	}
	if flags&^flagsKnown != 0 {
		return "flags", fmt.Errorf("%w %#x", ErrFlags, flags)
	}
	m.Leaving = flags&flagLeaving != 0
	m.Observer = flags&flagObserver != 0
	if m.Name, err = r.str(); err != nil {
		return "name", err
	}
	if err = ValidName(m.Name); err != nil {
		return "name", err
	}
	if m.Instance, err = r.uint(); err != nil {
		return "instance", err
	}
	if m.Instance == 0 {
		return "instance", errInstance
	}
	if m.Epoch, err = r.uint(); err != nil {
		return "epoch", err
	}
	if m.Tags, err = r.stringMap(ValidTagKey, readTag); err != nil {
		return "tags", err
	}
	if m.Services, err = r.stringMap(ValidService, readService); err != nil {
		return "services", err
	}
	return "", r.end()
}

func readTag(r *msgpackReader, key string) (string, error) {
	value, err := r.str()
	if err != nil {
		return "", err
	}
	return value, ValidTag(key, value)
}

func readService(r *msgpackReader, _ string) (string, error) {
	if r.isStr() {
		url, err := r.str()
		if err != nil {
			return "", err
		}
		if _, own := ownPort(url); own {
			return "", fmt.Errorf("%w: a port as a string", ErrType)
		}
		return url, ValidEndpoint(url)
	}
	port, err := r.uint()
	if err != nil {
		return "", err
	}
	if port == 0 || port > 65535 {
		return "", fmt.Errorf("port %d is not within 1 to 65535", port)
	}
	return ":" + strconv.FormatUint(port, 10), nil
}
