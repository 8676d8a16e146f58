// Package control is how the command line talks to an agent: HTTP over a unix
// socket. [Serve] puts an [Agent] behind the socket, and [Client] is an [Agent]
// that stands at the other end of it, so a caller cannot tell the two apart.
//
// Bodies of messages travel raw, with who and how in the query; everything else
// is JSON, and streams are JSON, one object a line. A failed call answers with a
// [Fault]. The routes are in one table, in server.go; client.go is its mirror.
package control

import (
	"context"
	"iter"
	"time"
)

// MaxMessage is the largest body of a message, in bytes.
const MaxMessage = 1 << 20

// Mail is what needs a member of the cluster and no more. Every error is a
// *Fault. The time that a call may take is that of its context.
type Mail interface {
	Members(ctx context.Context) ([]Member, error)
	Send(ctx context.Context, to Target, body []byte) error
	Request(ctx context.Context, to Target, body []byte) ([]byte, error)
	Push(ctx context.Context, to Target, body []byte) error
	Ping(ctx context.Context, to Target) (time.Duration, error)

	// Broadcast's error says that nothing was sent; who of the members failed to
	// get a reliable one is in the Receipt.
	Broadcast(ctx context.Context, topic string, reliable bool, body []byte) (Receipt, error)
}

// Agent is a node that runs.
type Agent interface {
	Mail
	Info(ctx context.Context) (Info, error)
	Join(ctx context.Context, seeds []string) (int, error)
	Leave(ctx context.Context) error // the agent ends
	Tags(ctx context.Context, change TagChange) (map[string]string, error)

	// Events and Listen begin with the call, not with the loop over them, and
	// yield until ctx ends, which is no error, or the agent does. ctx must end.
	Events(ctx context.Context) iter.Seq2[Event, error]
	Listen(ctx context.Context, opts ListenOptions) iter.Seq2[Record, error]
	Answer(ctx context.Context, session string, seq uint64, a Answer) error
}
