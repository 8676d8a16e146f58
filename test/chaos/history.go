package chaos

import (
	"fmt"
	"sync"
	"testing"
)

// maxViolations is how many a History keeps; it counts the others.
const maxViolations = 20

// Rules of a History, beside those that always hold.
type Rules struct {
	// Increasing: of one sender, nothing is handled after what it sent later.
	Increasing bool

	// Prefix: of one sender and one path, what was handled is the beginning of what
	// was accepted: nothing before it is missing.
	Prefix bool
}

// History is what is known of messages: what was tried, what the calls said, and what
// was handled. These always hold, or are violations:
//
//   - nothing is handled that was not sent, or is not as it was sent;
//   - nothing is handled twice, but for what its sender says MayRepeat;
//   - what a call said was not sent, or later that it never was written, is not handled;
//   - what a call said was handled, was handled before it said so.
//
// It forgets what is settled, so it stays small in a long run. All methods may be
// called concurrently.
type History struct {
	rules Rules

	mu         sync.Mutex
	senders    []*Sender
	violations []string
	more       int // violations that were not kept
}

// NewHistory returns an empty History.
func NewHistory(rules Rules) *History { return &History{rules: rules} }

// Sender is one source of messages, which it numbers from 1, one after the other.
type Sender struct {
	h    *History
	id   uint32
	name string

	mu      sync.Mutex
	repeats bool   // a message may be handled more than once
	settled uint64 // up to here
	open    []sent // what comes after
	last    uint64 // handled last
	tally   Tally
}

// sent is a message that is not settled.
type sent struct {
	path    uint32 // it was sent on last
	made    uint32 // the path that its bytes name
	size    uint32
	state   state
	handled bool
}

// state is what the sender knows.
type state uint8

const (
	sending  state = iota // the call has not returned
	accepted              // it said: accepted. Nothing more is promised
	answered              // it said: handled
	unknown               // it said: perhaps
	refused               // it said: not sent, it will not be handled
	unsent                // accepted, and later: never written, it will not be handled
)

// Tally counts messages.
type Tally struct {
	Sent      int // that were tried at least once
	Accepted  int // calls
	Answered  int
	Unknown   int
	Refused   int // calls
	Unsent    int // reports
	Handled   int // once or more
	Repeated  int // times that one was handled again
	Lost      int // settled ones that were accepted, not reported as unsent, and not handled
	LostBytes int
}

// Add returns the sum of t and u.
func (t Tally) Add(u Tally) Tally {
	return Tally{
		Sent: t.Sent + u.Sent, Accepted: t.Accepted + u.Accepted, Answered: t.Answered + u.Answered,
		Unknown: t.Unknown + u.Unknown, Refused: t.Refused + u.Refused, Unsent: t.Unsent + u.Unsent,
		Handled: t.Handled + u.Handled, Repeated: t.Repeated + u.Repeated, Lost: t.Lost + u.Lost, LostBytes: t.LostBytes + u.LostBytes,
	}
}

func (t Tally) String() string {
	return fmt.Sprintf("%d messages, calls: %d accepted, %d answered, %d unknown, %d not sent; %d reported unsent, %d handled, %d times again, %d (%d bytes) lost",
		t.Sent, t.Accepted, t.Answered, t.Unknown, t.Refused, t.Unsent, t.Handled, t.Repeated, t.Lost, t.LostBytes)
}

// Sender adds a sender.
func (h *History) Sender(name string) *Sender {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Sender{h: h, id: uint32(len(h.senders) + 1), name: name}
	h.senders = append(h.senders, s)
	return s
}

// MayRepeat says that its messages are harmless when they are handled more than once.
func (s *Sender) MayRepeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repeats = true
}

// Name is the name it was given.
func (s *Sender) Name() string { return s.name }

// Next begins a message of size bytes, to be sent on path.
func (s *Sender) Next(path uint32, size int) *Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &Message{Sender: s.id, Path: path, Seq: s.settled + uint64(len(s.open)) + 1, Size: max(size, MinSize)}
	s.open = append(s.open, sent{path: path, made: path, size: uint32(m.Size)})
	s.tally.Sent++
	return m
}

// Again begins a message once more that was not sent, or never written, on another
// path: its new bytes name that path.
func (s *Sender) Again(seq uint64, path uint32) *Message {
	m := &Message{Sender: s.id, Path: path, Seq: seq}
	s.change(seq, sending, func(r *sent) bool {
		r.path, r.made = path, path
		m.Size = int(r.size)
		return r.state == refused || r.state == unsent
	})
	return m
}

// Resend is Again with the bytes as they were.
func (s *Sender) Resend(seq uint64, path uint32) {
	s.change(seq, sending, func(r *sent) bool {
		r.path = path
		return r.state == refused || r.state == unsent
	})
}

// Accepted says that the call returned, and promised nothing more.
func (s *Sender) Accepted(seq uint64) {
	s.change(seq, accepted, func(r *sent) bool { s.tally.Accepted++; return r.state == sending })
}

// Unknown says that the message may or may not be handled.
func (s *Sender) Unknown(seq uint64) {
	s.change(seq, unknown, func(r *sent) bool { s.tally.Unknown++; return r.state == sending })
}

// Answered says that the call claims that the message was handled.
func (s *Sender) Answered(seq uint64) {
	handled := true
	s.change(seq, answered, func(r *sent) bool { s.tally.Answered++; handled = r.handled; return r.state == sending })
	if !handled {
		s.violation(seq, "was not handled when its call said that it was")
	}
}

// Refused says that the message will not be handled, according to its call.
func (s *Sender) Refused(seq uint64) {
	handled := false
	s.change(seq, refused, func(r *sent) bool { s.tally.Refused++; handled = r.handled; return r.state == sending })
	if handled {
		s.violation(seq, "was handled before its call said that it was not sent")
	}
}

// Unsent says that a message which was accepted was reported as never written.
func (s *Sender) Unsent(seq uint64) {
	handled := false
	s.change(seq, unsent, func(r *sent) bool { s.tally.Unsent++; handled = r.handled; return r.state == accepted })
	if handled {
		s.violation(seq, "was handled before it was reported as never written")
	}
}

// change gives a message a new state, if ok says that it may have it.
func (s *Sender) change(seq uint64, to state, ok func(*sent) bool) {
	s.mu.Lock()
	r := s.at(seq)
	good := r != nil && ok(r)
	if r != nil {
		r.state = to
	}
	s.mu.Unlock()
	if !good {
		s.violation(seq, fmt.Sprintf("cannot become state %d now", to))
	}
}

// at is the record of a message that is not settled, or nil. The caller holds mu.
func (s *Sender) at(seq uint64) *sent {
	if seq <= s.settled || seq > s.settled+uint64(len(s.open)) {
		return nil
	}
	return &s.open[seq-s.settled-1]
}

// Handled says that b was handled. It returns the message, and false when b is none.
func (h *History) Handled(b []byte) (*Message, bool) {
	m, err := Parse(b)
	if err != nil {
		h.violation(fmt.Sprintf("invented or altered: %v", err))
		return nil, false
	}
	h.mu.Lock()
	var s *Sender
	if i := int(m.Sender) - 1; i >= 0 && i < len(h.senders) {
		s = h.senders[i]
	}
	h.mu.Unlock()
	if s == nil {
		h.violation(fmt.Sprintf("invented: a message of sender %d, who is not known", m.Sender))
		return nil, false
	}
	for _, what := range s.handle(&m) {
		s.violation(m.Seq, what)
	}
	return &m, true
}

// handle records that m was handled, and tells what is wrong with that.
func (s *Sender) handle(m *Message) (wrong []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.Handled++
	if s.h.rules.Increasing && m.Seq <= s.last {
		wrong = append(wrong, fmt.Sprintf("was handled after number %d of the same sender", s.last))
	}
	s.last = max(s.last, m.Seq)
	r := s.at(m.Seq)
	switch {
	case r == nil && m.Seq <= s.settled:
		return append(wrong, "was handled when everything was over, or twice")
	case r == nil:
		return append(wrong, "was handled and never sent")
	}
	if r.handled && !s.repeats {
		wrong = append(wrong, "was handled twice")
	}
	if r.handled {
		s.tally.Handled--
		s.tally.Repeated++
	}
	if r.made != m.Path {
		wrong = append(wrong, fmt.Sprintf("was handled as sent on path %d, and was sent again on %d", m.Path, r.path))
	}
	if r.size != uint32(m.Size) {
		wrong = append(wrong, fmt.Sprintf("was handled with %d bytes, and sent with %d", m.Size, r.size))
	}
	switch r.state {
	case refused:
		wrong = append(wrong, "was handled after its call said that it was not sent")
	case unsent:
		wrong = append(wrong, "was handled after it was reported as never written")
	}
	r.handled = true
	return wrong
}

// Settle says that nothing is under way any more: what was not handled will not be.
// Messages at the end that were refused or unsent stay open, since they may be sent
// again. It returns what the sender lost since the last time.
func (s *Sender) Settle() (lost, bytes int) {
	s.mu.Lock()
	var wrong []uint64
	missing := make(map[uint32]uint64) // by path: the first that was not handled
	keep := 0                          // how many of open are settled
	for i := range s.open {
		r, seq := &s.open[i], s.settled+uint64(i)+1
		if r.state != refused && r.state != unsent {
			keep = i + 1
		}
		switch {
		case r.state == refused || r.state == answered || r.state == unknown:
			continue // not part of a stream that promises no gaps
		case r.handled && missing[r.path] != 0:
			wrong = append(wrong, seq)
		case !r.handled && missing[r.path] == 0:
			missing[r.path] = seq
		}
		if !r.handled && r.state == accepted {
			lost++
			bytes += int(r.size)
		}
	}
	s.tally.Lost += lost
	s.tally.LostBytes += bytes
	var sendingStill uint64
	for i := range s.open[:keep] {
		if s.open[i].state == sending {
			sendingStill = s.settled + uint64(i) + 1
		}
	}
	s.settled += uint64(keep)
	s.open = append([]sent(nil), s.open[keep:]...) // they may have been many
	s.mu.Unlock()
	if s.h.rules.Prefix {
		for _, seq := range wrong {
			s.violation(seq, "was handled, and one before it on the same path was not")
		}
	}
	if sendingStill != 0 {
		s.violation(sendingStill, "is still being sent when everything is over")
	}
	return lost, bytes
}

// Tally counts the messages of this sender.
func (s *Sender) Tally() Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally
}

// Tally counts the messages of all senders.
func (h *History) Tally() (sum Tally) {
	for _, s := range h.all() {
		sum = sum.Add(s.Tally())
	}
	return sum
}

// Settle settles all senders.
func (h *History) Settle() (lost, bytes int) {
	for _, s := range h.all() {
		l, b := s.Settle()
		lost, bytes = lost+l, bytes+b
	}
	return lost, bytes
}

// Of is the sender of a message that Parse returned and this History knows.
func (h *History) Of(m *Message) *Sender {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.senders[m.Sender-1]
}

func (h *History) all() []*Sender {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Sender(nil), h.senders...)
}

func (s *Sender) violation(seq uint64, what string) {
	s.h.violation(fmt.Sprintf("number %d of %s %s", seq, s.name, what))
}

// Violation records what a test found by itself.
func (h *History) Violation(format string, args ...any) { h.violation(fmt.Sprintf(format, args...)) }

func (h *History) violation(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.violations) < maxViolations {
		h.violations = append(h.violations, text)
	} else {
		h.more++
	}
}

// Violations is what must not be.
func (h *History) Violations() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := append([]string(nil), h.violations...)
	if h.more > 0 {
		all = append(all, fmt.Sprintf("and %d more", h.more))
	}
	return all
}

// Check fails the test for each violation.
func (h *History) Check(t testing.TB) {
	t.Helper()
	for _, v := range h.Violations() {
		t.Error(v)
	}
}
