package codec

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// ValidName reports whether s can name a node: 1 to 63 bytes of a-z A-Z 0-9 . _ -,
// beginning with a letter or digit. nil or *NameError.
func ValidName(s string) error { return validWord("node name", s, MaxName, false) }

// ValidService reports whether s can name a service: 1 to 63 bytes of
// a-z A-Z 0-9 . _ - /, beginning with a letter or digit. nil or *NameError.
func ValidService(s string) error { return validWord("service name", s, MaxService, true) }

// ValidTopic reports whether s can be a topic: 0 to 255 bytes of UTF-8 without
// control characters. nil or *NameError. A topic that begins with '$' is valid
// here but reserved for Parley itself: whoever takes topics from users refuses it.
func ValidTopic(s string) error {
	return validText("topic", s, MaxTopic, func(c rune) bool { return !unicode.IsControl(c) },
		"0 to 255 bytes of UTF-8 without control characters")
}

// ValidTagKey reports whether s can be the key of a tag: 1 to 63 bytes of
// a-z A-Z 0-9 . _ - /, beginning with a letter or digit. nil or *NameError.
func ValidTagKey(s string) error { return validWord("tag key", s, MaxTagKey, true) }

// ValidTag reports whether a tag is valid: its key as in ValidTagKey, its value
// 0 to 128 bytes of printable UTF-8, spaces included. nil or *NameError.
func ValidTag(key, value string) error {
	if err := ValidTagKey(key); err != nil {
		return err
	}
	return validText("tag value", value, MaxTagValue, unicode.IsPrint,
		"0 to 128 bytes of printable UTF-8 without control characters")
}

func validWord(what, s string, limit int, slash bool) error {
	if s == "" || len(s) > limit {
		return wordError(what, s, limit, slash, lengthReason(s))
	}
	for i := range len(s) {
		c := s[i]
		if class := wordBytes[c]; class == first || i > 0 && (class == inner || class == slashed && slash) {
			continue
		}
		if i == 0 && c < utf8.RuneSelf {
			return wordError(what, s, 0, slash, fmt.Sprintf("begins with %q", c))
		}
		if c < utf8.RuneSelf {
			return wordError(what, s, 0, slash, fmt.Sprintf("has %q at byte %d", c, i))
		}
		return wordError(what, s, 0, slash, fmt.Sprintf("has byte %#x at %d", c, i))
	}
	return nil
}

// Classes of the bytes of a word. Names are checked with every message, so the
// question is one look into a table.
const (
	first   = 1 + iota // may begin a word
	inner              // may stand in it
	slashed            // may stand in it where slashes may
)

var wordBytes = func() (class [256]uint8) {
	for c := range class {
		switch c := byte(c); {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			class[c] = first
		case c == '.', c == '_', c == '-':
			class[c] = inner
		case c == '/':
			class[c] = slashed
		}
	}
	return class
}()

func wordError(what, s string, limit int, slash bool, reason string) error {
	allowed := "1 to 63 bytes of a-z A-Z 0-9 . _ - that begin with a letter or digit"
	if slash {
		allowed = "1 to 63 bytes of a-z A-Z 0-9 . _ - / that begin with a letter or digit"
	}
	if s == "" {
		limit = 0
	}
	return &NameError{What: what, Value: s, Reason: reason, Allowed: allowed, limit: limit}
}

func validText(what, s string, limit int, ok func(rune) bool, allowed string) error {
	if len(s) > limit {
		return &NameError{What: what, Value: s, Reason: lengthReason(s), Allowed: allowed, limit: limit}
	}
	if printableASCII(s) {
		return nil
	}
	for i, c := range s {
		reason := ""
		if c == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				reason = fmt.Sprintf("is not UTF-8 at byte %d", i)
			}
		}
		if reason == "" && !ok(c) {
			reason = fmt.Sprintf("has %U at byte %d", c, i)
		}
		if reason != "" {
			return &NameError{What: what, Value: s, Reason: reason, Allowed: allowed}
		}
	}
	return nil
}

// printableASCII reports whether s is of characters that are valid in every
// text, as nearly all are.
func printableASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func lengthReason(s string) string {
	if s == "" {
		return "is empty"
	}
	return fmt.Sprintf("is %d bytes long", len(s))
}
