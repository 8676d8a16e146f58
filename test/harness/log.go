package harness

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
)

// maxLog bounds what a Log keeps, in bytes. The beginning gives way.
const maxLog = 256 << 10

// Log keeps what a node logs and shows it when the test has failed.
type Log struct {
	*slog.Logger
	mu  sync.Mutex
	buf bytes.Buffer
	cut bool
}

// NewLog returns the log of the node of that name, from debug level on.
func NewLog(t testing.TB, name string) *Log {
	l := new(Log)
	l.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, l)
		}
	})
	return l
}

// Write takes one line.
func (l *Log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len()+len(line) > maxLog {
		l.buf.Next(l.buf.Len() / 2)
		_, _ = l.buf.ReadBytes('\n') // the rest of a line
		l.cut = true
	}
	return l.buf.Write(line)
}

// String returns what is kept.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return "(earlier lines dropped)\n" + l.buf.String()
	}
	return l.buf.String()
}
