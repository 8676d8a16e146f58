package unicast

import (
	"context"
	"errors"

	"github.com/parley-mesh/parley/codec"
)

// Inbox is a Handler that keeps messages until Recv takes them. To the sender of
// a Send, nil then means: in the Inbox. An Inbox does not answer, so a Request is
// refused with ErrNoListener.
//
// Methods may be called concurrently.
type Inbox struct{ q queue }

// NewInbox returns an Inbox that holds at most maxMessages messages whose bodies
// have at most maxBytes bytes together. Zero or less means 1024 messages and
// 8 MiB. A single message larger than maxBytes is taken when the Inbox is empty.
func NewInbox(maxMessages, maxBytes int) *Inbox {
	if maxMessages <= 0 {
		maxMessages = 1024
	}
	if maxBytes <= 0 {
		maxBytes = 8 << 20
	}
	return &Inbox{q: queue{maxMessages: maxMessages, maxBytes: maxBytes}}
}

// Handle keeps m. When the Inbox is full it returns ErrBusy at once, and after
// Close ErrNoListener: both tell the sender that m was not delivered.
func (b *Inbox) Handle(_ context.Context, m Message) ([]byte, error) {
	if m.Kind == codec.KindRequest {
		return nil, ErrNoListener
	}
	err := b.q.tryPut(m)
	if errors.Is(err, ErrClosed) {
		err = ErrNoListener
	}
	return nil, err
}

// Recv returns the oldest message, and waits for one until ctx ends; then it
// returns the cause. After Close it returns what is left, then ErrClosed.
func (b *Inbox) Recv(ctx context.Context) (Message, error) { return b.q.get(ctx) }

// Len is the number of messages that wait.
func (b *Inbox) Len() int {
	n, _ := b.q.queued()
	return n
}

// Close refuses what arrives from now on. Those who wait in Recv get ErrClosed.
func (b *Inbox) Close() error {
	b.q.close()
	return nil
}
