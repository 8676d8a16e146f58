package unicast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/parley-mesh/parley/codec"
)

// Outcome is what is known about a message whose call returned an error.
type Outcome uint8

const (
	NotDelivered Outcome = iota // the handler has not seen it and will not
	Unknown                     // it may or may not have been handled, or may be yet
	Handled                     // the handler saw it and failed
)

// String returns "NOT DELIVERED", "UNKNOWN" or "HANDLER FAILED".
func (o Outcome) String() string {
	switch o {
	case NotDelivered:
		return "NOT DELIVERED"
	case Handled:
		return "HANDLER FAILED"
	}
	return "UNKNOWN"
}

// Error is what Push, Send, SendReserved, Request and Ping return: what was
// tried, on whom, where, why it failed, and what became of the message.
type Error struct {
	Op      string  // push, send, request or ping
	Node    string  // the node that was meant
	URL     string  // where it is, when that was known
	Outcome Outcome // what became of the message
	Err     error   // the cause: an error of Directory.Lookup, a sentinel of this package, *RemoteError, *codec.LimitError, *codec.NameError, a context's or the network's error
}

func (e *Error) Error() string {
	node := e.Node
	if codec.ValidName(node) != nil {
		node = strconv.QuoteToASCII(node)
	}
	s := "unicast: " + e.Op + " to " + node
	if e.URL != "" {
		s += " at " + e.URL
	}
	if e.Err != nil {
		s += ": " + reason(e.Err)
	}
	return s + " (" + e.Outcome.String() + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RemoteError is the failure of the other node's handler. It matches
// context.DeadlineExceeded when the handler failed because the deadline that
// came with the message had passed.
type RemoteError struct {
	Node, Topic string
	Text        string // what the handler said, at most 4 KiB, or what it panicked with
	Panic       bool   // the handler panicked; its node logged the stack
	timeout     error
}

func (e *RemoteError) Error() string {
	s := "its handler failed: "
	if e.Panic {
		s = "its handler panicked: "
	}
	return s + e.Text
}

func (e *RemoteError) Unwrap() error { return e.timeout }

// Causes, for errors.Is.
var (
	ErrNoListener    = errors.New("no listener")                           // nobody handles the topic over there
	ErrBusy          = errors.New("busy")                                  // a limit was reached, here or there
	ErrWrongNode     = errors.New("another node answered")                 // at the address of the node, not it or not this start of it
	ErrClosing       = errors.New("the node is shutting down its mailbox") // over there
	ErrNotUnderstood = errors.New("the node could not read the message")   // a different format or a smaller limit
	ErrPushesLost    = errors.New("pushes lost")                           // of Shutdown: with their connection or their node
	ErrReservedTopic = errors.New("topics that begin with '$' are reserved")

	// ErrClosed says that this Messenger (or Inbox) is closed, or being closed.
	// It also matches net.ErrClosed.
	ErrClosed error = closedError{}
)

type closedError struct{}

func (closedError) Error() string        { return "mailbox closed" }
func (closedError) Is(target error) bool { return target == net.ErrClosed }

var (
	errWrongReply = errors.New("the reply belongs to another message")
	errNodeDead   = errors.New("the node has failed")
	errMoved      = errors.New("the node has moved or left")
	errReplaced   = errors.New("the node was started anew")
)

// ended is the cause of ctx's end, and always matches ctx.Err() too.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// plain takes off what package sp says it tried, and where: our own error says it.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "sp: ") {
		err = inner
	}
	if call, ok := err.(*os.SyscallError); ok {
		err = call.Err // not "connect: connection refused"
	}
	return err
}

// reason is the text of a cause, without what the error around it says already,
// when the cause can tell.
func reason(err error) string {
	if short, ok := err.(interface{ Reason() string }); ok {
		return short.Reason()
	}
	return err.Error()
}
