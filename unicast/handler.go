package unicast

import (
	"context"

	"github.com/parley-mesh/parley/codec"
)

// Message is what a Handler gets.
type Message struct {
	ID    codec.ID
	Kind  codec.Kind // KindPush, KindSend or KindRequest
	From  string     // sender's node name: a claim, as long as links are not authenticated
	Topic string
	Body  []byte // owned by the handler, see Borrow; nil when empty
}

// Handler takes the messages that arrive.
//
// It is called concurrently: for messages of KindSend and KindRequest up to
// Config.InFlight at once per connection, of which a node keeps one, and for those
// of KindPush one after the other per connection, in their order. A connection
// that broke is no longer that one: what was received on it is still handled, beside
// what comes on the next.
//
// For KindSend and KindRequest ctx ends when the sender's deadline has passed, after
// an hour at the latest, and when the connection to the sender is seen to be lost.
// A sender that says no deadline, as none of ours, gets Config.Timeout. A push has
// no deadline, and is handled even when its connection is lost. For all, ctx ends
// when the Messenger is closed.
//
// For KindRequest, reply is the answer; it must not be changed afterwards. For
// the others it is ignored. An error is reported to the sender with its text
// (at most 4 KiB), and says that the handler saw the message and failed. Two
// errors say instead that the message was refused, so that the sender knows it
// was not delivered: those that match ErrNoListener or ErrBusy and do not come
// from a call of a Messenger. Errors of pushes are counted and logged.
//
// A panic is recovered, logged with its stack and reported to the sender.
//
// A handler must not call Close or Shutdown of its own Messenger, which wait for it.
type Handler interface {
	Handle(ctx context.Context, m Message) (reply []byte, err error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, m Message) ([]byte, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, m Message) ([]byte, error) { return f(ctx, m) }
