package sp

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// logger lets each kind of line pass once a second, with the number of those held
// back before it: a hostile peer must not be able to fill the disk. What is held
// back is still counted in Stats.
type logger struct {
	out *slog.Logger

	mu    sync.Mutex
	lines map[string]*logLine // by message, of which the package has a handful
}

type logLine struct {
	next       time.Time
	suppressed int
}

func newLogger(out *slog.Logger) *logger {
	return &logger{out: out, lines: make(map[string]*logLine)}
}

func (l *logger) log(level slog.Level, msg string, args ...any) {
	if !l.out.Enabled(context.Background(), level) {
		return
	}
	n, ok := l.pass(msg, time.Now())
	if !ok {
		return
	}
	if n > 0 {
		args = append(args, "suppressed", n)
	}
	l.out.Log(context.Background(), level, msg, args...)
}

func (l *logger) pass(msg string, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.lines[msg]
	if line == nil {
		line = &logLine{}
		l.lines[msg] = line
	}
	if now.Before(line.next) {
		line.suppressed++
		return 0, false
	}
	suppressed = line.suppressed
	line.suppressed = 0
	line.next = now.Add(time.Second)
	return suppressed, true
}

func (l *logger) debug(msg string, args ...any) { l.log(slog.LevelDebug, msg, args...) }
func (l *logger) warn(msg string, args ...any)  { l.log(slog.LevelWarn, msg, args...) }
func (l *logger) error(msg string, args ...any) { l.log(slog.LevelError, msg, args...) }
