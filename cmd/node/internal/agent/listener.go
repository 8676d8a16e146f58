package agent

import (
	"strings"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

// listener is one that is attached to a Hub, under whose mutex all of it is.
type listener struct {
	session string
	opts    control.ListenOptions
	seq     uint64
	queue   []*delivery          // to be told
	bytes   int                  // of bodies in queue and given
	given   map[uint64]*delivery // told, not answered
	cancels []uint64             // given, and nobody waits any more
	free    int                  // answering: messages it can take now
	left    int                  // messages it still wants; -1: no limit
	lost    int                  // missed since it was last told
	gone    bool
	wake    chan struct{} // has an element when there may be something to tell
}

// delivery is one message on its way to one listener.
type delivery struct {
	to   *listener
	seq  uint64
	msg  control.Message
	done chan result // has room for the result
}

// result of a delivery.
type result struct {
	reply  []byte
	err    error
	unseen bool // the listener was never told
}

func newListener(session string, opts control.ListenOptions) *listener {
	opts.Slots = max(opts.Slots, 1)
	if len(opts.Topics) == 0 {
		opts.Topics = []string{"*"}
	}
	l := &listener{
		session: session, opts: opts, free: opts.Slots, left: -1,
		given: make(map[uint64]*delivery), wake: make(chan struct{}, 1),
	}
	if opts.Limit > 0 {
		l.left = opts.Limit
		l.free = min(l.free, l.left)
	}
	return l
}

// wants reports whether it listens to topic and still takes messages.
func (l *listener) wants(topic string) bool {
	if l.left == 0 && l.opts.Limit > 0 {
		return false
	}
	for _, pattern := range l.opts.Topics {
		if MatchTopic(pattern, topic) {
			return true
		}
	}
	return false
}

// MatchTopic reports whether topic is the pattern, or begins with what stands
// before the pattern's final '*'.
func MatchTopic(pattern, topic string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok && (prefix == "" || strings.HasSuffix(prefix, ".")) {
		return strings.HasPrefix(topic, prefix)
	}
	return pattern == topic
}

// size is what a delivery holds, in bytes: an empty message takes memory too.
func (d *delivery) size() int { return len(d.msg.Body) + len(d.msg.Topic) + 512 }

// offer queues a copy for a printing listener, unless it is too far behind.
func (l *listener) offer(d *delivery) bool {
	if l.bytes > 0 && l.bytes+d.size() > queueBytes {
		l.lost++
		l.signal()
		return false
	}
	l.push(d)
	return true
}

func (l *listener) push(d *delivery) {
	l.seq++
	d.seq = l.seq
	if l.left > 0 {
		l.left--
	}
	l.queue = append(l.queue, d)
	l.bytes += d.size()
	l.signal()
}

// pop takes what is to be told next.
func (l *listener) pop() (rec control.Record, ok bool) {
	if len(l.cancels) > 0 {
		rec.Type, rec.Seq = control.RecordCancel, l.cancels[0]
		l.cancels = l.cancels[1:]
		return rec, true
	}
	if l.lost > 0 {
		rec.Type, rec.Lost = control.RecordLagged, l.lost
		l.lost = 0
		return rec, true
	}
	if len(l.queue) == 0 {
		return rec, false
	}
	d := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.given[d.seq] = d
	msg := d.msg
	return control.Record{Type: control.RecordMessage, Seq: d.seq, Message: &msg}, true
}

// finished means that the limit was reached and everything answered.
func (l *listener) finished() bool {
	return l.opts.Limit > 0 && l.left == 0 && len(l.queue) == 0 && len(l.given) == 0
}

// answer finishes the delivery seq.
func (l *listener) answer(seq uint64, r result) bool {
	d, ok := l.given[seq]
	if !ok {
		return false
	}
	delete(l.given, seq)
	l.bytes -= d.size()
	l.settle()
	d.done <- r
	l.signal()
	return true
}

// cancel is called when nobody waits for d any more.
func (l *listener) cancel(d *delivery) {
	for i, q := range l.queue {
		if q != d {
			continue
		}
		l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
		l.bytes -= d.size()
		if l.opts.Limit > 0 {
			l.left++
		}
		l.settle()
		return
	}
	if _, ok := l.given[d.seq]; ok && !l.gone {
		l.cancels = append(l.cancels, d.seq)
		l.signal()
	}
}

// settle counts how many messages an answering listener can take.
func (l *listener) settle() {
	if !l.opts.Answer || l.gone {
		return
	}
	l.free = l.opts.Slots - len(l.queue) - len(l.given)
	if l.opts.Limit > 0 {
		l.free = min(l.free, l.left)
	}
}

// abandon ends the listener: what it was told fails, the rest is unseen.
func (l *listener) abandon(err error) {
	if l.gone {
		return
	}
	l.gone, l.free = true, 0
	for _, d := range l.given {
		d.done <- result{err: err}
	}
	for _, d := range l.queue {
		d.done <- result{err: err, unseen: true}
	}
	l.queue, l.bytes, l.cancels = nil, 0, nil
	clear(l.given)
	l.signal()
}

func (l *listener) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
