package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

// shown is how many bytes of a body a line shows.
const shown = 256

// Line is what a person sees of a message: the time, how it came, from whom, the
// topic, the size, and the body, quoted, so that nothing in it can move a
// cursor, and cut when it is long.
func Line(m control.Message) string {
	b := make([]byte, 0, 96+min(len(m.Body), shown))
	b = m.Time.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, ' ')
	b = append(b, m.Kind...)
	b = append(b, ' ')
	b = append(b, printable(m.From)...)
	b = append(b, ' ')
	b = append(b, printable(m.Topic)...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(m.Body)), 10)
	b = append(b, "B "...)
	body := m.Body
	if len(body) > shown {
		body = body[:shown]
		// Not in the middle of a character, if it is text.
		for i := len(body) - 1; i >= len(body)-utf8.UTFMax; i-- {
			if utf8.RuneStart(body[i]) {
				if !utf8.FullRune(body[i:]) {
					body = body[:i]
				}
				break
			}
		}
	}
	b = strconv.AppendQuote(b, string(body))
	if rest := len(m.Body) - len(body); rest > 0 {
		b = append(b, "… and "...)
		b = strconv.AppendInt(b, int64(rest), 10)
		b = append(b, "B more"...)
	}
	return string(b)
}

// printer writes lines, one at a time. What it writes to may block, a terminal
// that was stopped, say; then callers wait no longer than their contexts.
type printer struct {
	w     io.Writer
	log   *slog.Logger
	lines chan line
	quit  chan struct{}
	done  chan struct{}
}

type line struct {
	text string
	err  chan error // has room
}

func newPrinter(w io.Writer, log *slog.Logger) *printer {
	p := &printer{w: w, log: log, lines: make(chan line), quit: make(chan struct{}), done: make(chan struct{})}
	go p.run() // ended by close
	return p
}

func (p *printer) run() {
	defer close(p.done)
	var told time.Time // at most once a minute
	for {
		select {
		case l := <-p.lines:
			_, err := io.WriteString(p.w, l.text)
			if err != nil && time.Since(told) > time.Minute {
				told = time.Now()
				p.log.Error("messages cannot be printed, and their senders are told so", "err", err)
			}
			l.err <- err
		case <-p.quit:
			return
		}
	}
}

// print returns nil when the line of m is written.
func (p *printer) print(ctx context.Context, m control.Message) error {
	l := line{text: Line(m) + "\n", err: make(chan error, 1)}
	select {
	case p.lines <- l:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.quit:
		return errStopping
	}
	select {
	case err := <-l.err:
		if err != nil {
			return errors.New("the agent could not print it: " + err.Error())
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends the printer. A write that is blocked keeps its goroutine until the
// process ends; close does not wait for that for longer than a second.
func (p *printer) close() {
	close(p.quit)
	select {
	case <-p.done:
	case <-time.After(time.Second):
	}
}
