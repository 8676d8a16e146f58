package sp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// Conditions that errors of this package match (errors.Is).
var (
	// ErrClosed: the object was closed by its owner. It also matches net.ErrClosed.
	ErrClosed error = closedError{}
	// ErrTooLarge: the message to send is over Config.MaxMessage; the error is a
	// *LimitError. A connection that a peer's message ended does not match it.
	ErrTooLarge = errors.New("message too large")
	// ErrNotSent: the message was not sent, not as a whole; the peer has not seen it
	// and will not. The cause is wrapped beside it.
	ErrNotSent = errors.New("not sent")
	// ErrConnectionLost: the connection ended after the system had taken the message;
	// the peer may or may not have seen it. It never comes together with ErrNotSent.
	ErrConnectionLost = errors.New("connection lost")
	// ErrHandshake: there is a peer, and it does not speak the SP protocol wanted.
	ErrHandshake = errors.New("SP handshake failed")
	// ErrMalformed: a message without a valid SP header.
	ErrMalformed = errors.New("malformed SP message")
)

type closedError struct{}

func (closedError) Error() string        { return "closed" }
func (closedError) Is(target error) bool { return target == net.ErrClosed }

// LimitError says by how much a message is over the limit. It matches ErrTooLarge.
type LimitError struct {
	Size  uint64 // bytes
	Limit int    // bytes
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("message of %d bytes is over the limit of %d bytes", e.Size, e.Limit)
}

// Is reports whether target is ErrTooLarge.
func (e *LimitError) Is(target error) bool { return target == ErrTooLarge }

// URLError is an address that cannot be used.
type URLError struct {
	URL    string
	Reason string
}

func (e *URLError) Error() string {
	return fmt.Sprintf("bad address %q: %s", e.URL, e.Reason)
}

// DrainError says what was accepted by a Pusher and not written to its connection.
type DrainError struct {
	URL      string
	Messages uint64
	Bytes    uint64 // of their bodies
	Err      error  // the connection's end, or the context's
}

func (e *DrainError) Error() string {
	return fmt.Sprintf("sp: drain to %s: %d messages (%d bytes) not written: %v", e.URL, e.Messages, e.Bytes, e.Err)
}

func (e *DrainError) Unwrap() error { return e.Err }

// callError says what was tried and on whom.
type callError struct {
	op  string // with its preposition
	url string
	err error
}

func (e *callError) Error() string { return "sp: " + e.op + " " + e.url + ": " + e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// Reason is the text for a caller that says the rest itself.
func (e *callError) Reason() string { return e.err.Error() }

// Ends of a connection that are not an error of the system.
var (
	errHungUp    = errors.New("closed by the peer")
	errCut       = errors.New("closed by the peer in the middle of a message")
	errStalled   = errors.New("stalled")
	errOversized = errors.New("too large a message from the peer")
)

func oversized(size uint64, limit int) error {
	return fmt.Errorf("%w: %d bytes, the limit is %d bytes", errOversized, size, limit)
}

// contextError is the cause of ctx's end, and always matches ctx.Err() too.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// plain takes off the layers of package net that repeat the addresses our own
// message already names, and gives the two ends of a stream their names.
func plain(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errCut
	case errors.Is(err, io.EOF):
		return errHungUp
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Err
	}
	return err
}
