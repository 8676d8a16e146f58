package unicast

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quiet logs one line per second and message at most, and says in the next one
// how many it held back: strangers decide how often these lines come.
type quiet struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]*quietLine
}

type quietLine struct {
	at       time.Time
	heldBack int
}

const quietInterval = time.Second

// line logs msg, which must be a constant, since it is the key that is counted.
func (q *quiet) line(level slog.Level, msg string, attrs ...slog.Attr) {
	q.mu.Lock()
	l := q.last[msg]
	if l == nil {
		if q.last == nil {
			q.last = make(map[string]*quietLine)
		}
		l = new(quietLine)
		q.last[msg] = l
	}
	now := time.Now()
	if now.Sub(l.at) < quietInterval {
		l.heldBack++
		q.mu.Unlock()
		return
	}
	if l.heldBack > 0 {
		attrs = append(attrs, slog.Int("held_back", l.heldBack))
	}
	*l = quietLine{at: now}
	q.mu.Unlock()
	q.log.LogAttrs(context.Background(), level, msg, attrs...)
}
