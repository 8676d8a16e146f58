package cluster

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// logInterval is the least time between two warnings of one kind; those in
// between are logged as debug lines and counted.
const logInterval = 10 * time.Second

// limiter lets one of a kind through per logInterval.
type limiter struct {
	mu    sync.Mutex
	kinds map[string]*limited
}

type limited struct {
	last       time.Time
	suppressed int
}

// allow reports whether a line of this kind may be logged now, and how many
// were held back since the last one.
func (l *limiter) allow(kind string) (ok bool, suppressed int) {
	const most = 64 // kinds; a stranger's text may be part of one
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		if l.kinds == nil || len(l.kinds) >= most {
			l.kinds = make(map[string]*limited)
		}
		k = &limited{}
		l.kinds[kind] = k
	}
	if now := time.Now(); k.last.IsZero() || now.Sub(k.last) >= logInterval {
		suppressed = k.suppressed
		*k = limited{last: now}
		return true, suppressed
	}
	k.suppressed++
	return false, 0
}

// logAdapter takes memberlist's lines and gives them to slog.
type logAdapter struct {
	log   *slog.Logger
	limit limiter
	muted atomic.Bool // memberlist's goroutines outlive it by seconds
}

// instanceSuffix is what makes a node's name unique to memberlist; people know the name.
var instanceSuffix = regexp.MustCompile(`~[0-9a-f]{16}\b`)

// memberlistLevels corrects levels that memberlist chose for itself: what this
// package says in other words, what is ordinary when a node is gone or was
// restarted, and what a port scan or a health check causes. The first prefix
// that fits counts.
var memberlistLevels = []struct {
	prefix string
	level  slog.Level
}{
	{"ignoring alive message for", slog.LevelDebug},   // NotifyAlive logs and counts it
	{"Suspect", slog.LevelDebug},                      // followed by "member failed", or it was an earlier start of a node that lives
	{"Marking", slog.LevelDebug},                      // the same
	{"Push/Pull with", slog.LevelInfo},                // the peer is about to be suspected
	{"Failed fallback TCP ping", slog.LevelDebug},     // the same
	{"Failed to send", slog.LevelInfo},                // the same
	{"Got ping for unexpected node", slog.LevelDebug}, // for an earlier start at this address
	{"Refuting an alive message", slog.LevelDebug},    // prints two whole metadata as numbers
	{"Refuting", slog.LevelInfo},                      // somebody did not hear us in time
	{"failed to receive and remove the stream label", slog.LevelDebug},
	{"Encryption of message failed", slog.LevelError},
}

// Write takes one line of memberlist's log.Logger.
func (a *logAdapter) Write(p []byte) (int, error) {
	if a.muted.Load() {
		return len(p), nil
	}
	level, text := splitLevel(strings.TrimSpace(string(p)))
	text = instanceSuffix.ReplaceAllString(strings.TrimPrefix(text, "memberlist: "), "")
	for _, rule := range memberlistLevels {
		if level > slog.LevelDebug && strings.HasPrefix(text, rule.prefix) {
			level = rule.level
			break
		}
	}
	attrs := []slog.Attr{slog.String("component", "memberlist")}
	if level >= slog.LevelWarn {
		kind := text[:min(24, len(text))]
		ok, suppressed := a.limit.allow(kind)
		if !ok {
			level = slog.LevelDebug
		}
		if suppressed > 0 {
			attrs = append(attrs, slog.Int("suppressed", suppressed))
		}
	}
	a.log.LogAttrs(context.Background(), level, text, attrs...)
	return len(p), nil
}

// splitLevel takes "[WARN] text" apart; a line without a level is a warning.
func splitLevel(line string) (slog.Level, string) {
	for _, l := range []struct {
		mark  string
		level slog.Level
	}{
		{"[DEBUG]", slog.LevelDebug},
		{"[INFO]", slog.LevelInfo},
		{"[WARN]", slog.LevelWarn},
		{"[ERR]", slog.LevelWarn}, // nearly all of them are about what others sent or did not answer
		{"[ERROR]", slog.LevelError},
	} {
		if rest, ok := strings.CutPrefix(line, l.mark); ok {
			return l.level, strings.TrimSpace(rest)
		}
	}
	return slog.LevelWarn, line
}
