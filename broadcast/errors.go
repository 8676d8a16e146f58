package broadcast

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/parley-mesh/parley/codec"
)

var (
	// ErrClosed says that the Broadcaster is closed. It matches net.ErrClosed too.
	ErrClosed error = closedError{}
	// ErrReservedTopic says that the topic begins with '$', which only Parley itself uses.
	ErrReservedTopic = errors.New("topics that begin with '$' are reserved")
	// ErrNoSender says that Open was given no Sender, so there is no Reliable.
	ErrNoSender = errors.New("opened without a sender, best effort only")
)

type closedError struct{}

func (closedError) Error() string        { return "broadcaster closed" }
func (closedError) Is(target error) bool { return target == net.ErrClosed }

// PartialError says that some members did not get a reliable broadcast, or may
// not have: each member's own error, which errors.Is and errors.As look through,
// says what is known.
type PartialError struct {
	ID      codec.ID
	Handled int              // members whose handler returned nil
	Written int              // members it was written to that do not acknowledge
	Failed  map[string]error // by name; never empty; the Receipt's own map
}

// Error names up to three of the failed members, in order of their names.
func (e *PartialError) Error() string {
	const shown = 3
	var s strings.Builder
	fmt.Fprintf(&s, "broadcast: %d of %d members failed: ", len(e.Failed), len(e.Failed)+e.Handled+e.Written)
	for i, name := range e.Names() {
		if i == shown {
			fmt.Fprintf(&s, "; and %d more", len(e.Failed)-shown)
			break
		}
		if i > 0 {
			s.WriteString("; ")
		}
		fmt.Fprintf(&s, "%s: %v", name, e.Failed[name])
	}
	return s.String()
}

// Names returns the names of the failed members, sorted.
func (e *PartialError) Names() []string {
	names := make([]string, 0, len(e.Failed))
	for name := range e.Failed {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Unwrap returns the errors of the failed members, in order of their names.
func (e *PartialError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed))
	for _, name := range e.Names() {
		errs = append(errs, e.Failed[name])
	}
	return errs
}

// refusal is an answer to the sender of a reliable broadcast that is more than
// "the handler failed". The overlay reads the status and answers with it.
type refusal struct {
	status codec.Status
	text   string
}

func (r *refusal) Error() string             { return r.text }
func (r *refusal) ReplyStatus() codec.Status { return r.status }

var (
	errNoHandler = errors.New("no handler")

	errClosing  = &refusal{codec.StatusClosing, "the node's broadcaster is closing"}
	errBusy     = &refusal{codec.StatusBusy, "the node's broadcast queue is full"}
	errNotBegun = &refusal{codec.StatusBusy, "not begun in time"}

	errNotAcked = errors.New("reliable broadcasts come here by acknowledged links only")
)

func malformed(format string, args ...any) *refusal {
	return &refusal{codec.StatusMalformed, fmt.Sprintf(format, args...)}
}

// checkTopic refuses what users may not send, and what nobody may send to users.
func checkTopic(topic string) error {
	if strings.HasPrefix(topic, "$") {
		return fmt.Errorf("topic %q: %w", topic, ErrReservedTopic)
	}
	return codec.ValidTopic(topic)
}
