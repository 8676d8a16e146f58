package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// line writes v as one line of JSON.
func (p *program) line(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := p.Stdout.Write(escapeUnprintable(b.Bytes()))
	return err
}

// escapeUnprintable writes the characters of JSON that a terminal may obey, and
// that encoding/json leaves as they are, as \u escapes: the JSON means the same.
func escapeUnprintable(line []byte) []byte {
	if !bytes.ContainsFunc(line, commands) {
		return line
	}
	out := make([]byte, 0, len(line)+64)
	for _, r := range string(line) {
		switch {
		case !commands(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// commands reports whether r is not to be seen but may do something: a control
// character, or one that changes the direction of the text.
func commands(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

// Colours, for people who see them.
const (
	plain  = ""
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	reset  = "\x1b[0m"
)

// colours reports whether w wants them.
func (p *program) colours(w io.Writer) bool {
	if v, ok := p.env("NO_COLOR"); ok && v != "" {
		return false
	}
	if term, _ := p.env("TERM"); term == "dumb" {
		return false
	}
	return isTerminal(w)
}

// cell of a table.
type cell struct{ text, colour string }

// table writes rows in columns. Empty cells stand at the end of a row only.
func (p *program) table(rows [][]cell) {
	var width []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	colours := p.colours(p.Stdout)
	var all strings.Builder
	for _, row := range rows {
		line, pad := "", 0
		for i, c := range row {
			if c.text == "" {
				continue
			}
			line += strings.Repeat(" ", pad)
			if c.colour != plain && colours {
				line += c.colour + c.text + reset
			} else {
				line += c.text
			}
			pad = width[i] - utf8.RuneCountInString(c.text) + 2
		}
		all.WriteString(line + "\n")
	}
	fmt.Fprint(p.Stdout, all.String())
}

// short is d with a precision that people read.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// millis is d in milliseconds, for JSON.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// counted is "1 node" or "2 nodes".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
