package unicast

import (
	"context"
	"errors"
	"iter"

	"github.com/parley-mesh/parley/codec"
)

// Services under which a Messenger is advertised.
const (
	ServiceRep  = "unicast-rep"  // SP REP: Send, Request and Ping
	ServicePull = "unicast-pull" // SP PULL: Push
)

// Directory is what a Messenger needs of the cluster; *cluster.Node satisfies it.
// All methods may be called concurrently.
type Directory interface {
	// Name is this node's name, and Instance the number of this start of it.
	Name() string
	Instance() uint64

	// BindHost is the address that listeners bind to, a wildcard included.
	BindHost() string

	// Lookup says where node offers service. It reads memory and does not wait.
	// Its errors reach the caller of the Messenger unchanged, inside an *Error.
	// An error for a node that is held dead, and not merely gone or without the
	// service, has in its chain one with a method NodeFailed() bool that returns
	// true: then calls in flight to that node end at once.
	Lookup(node, service string) (codec.Endpoint, error)

	// Advertise offers service at endpoint, ":PORT" for a port of this node's
	// own address; Withdraw ends it.
	Advertise(service, endpoint string) error
	Withdraw(service string) error

	// Providers yields where service is offered, by node name, now and again
	// after each change, until ctx ends.
	Providers(ctx context.Context, service string) iter.Seq[map[string]codec.Endpoint]
}

// nodeFailed reports whether a Lookup error says that the node is dead.
func nodeFailed(err error) bool {
	var dead interface{ NodeFailed() bool }
	return errors.As(err, &dead) && dead.NodeFailed()
}
