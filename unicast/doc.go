// Package unicast carries one message to one named node and says truly what
// became of it. Its core type is [Messenger].
//
//	mux := unicast.NewMux()
//	mux.Route("orders.*", unicast.HandlerFunc(func(ctx context.Context, m unicast.Message) ([]byte, error) {
//		return process(ctx, m.Body)
//	}))
//	mail, err := unicast.Listen(node, mux, unicast.Config{}) // node is a *cluster.Node
//	…
//	defer mail.Close()
//	reply, err := mail.Request(ctx, "node2", "orders.create", body)
//
// # Three ways to send
//
// [Messenger.Request] returns the reply of the other node's handler.
// [Messenger.Send] returns nil when that handler returned nil, and before that
// nil. [Messenger.Push] returns as soon as the message is queued on the
// connection to that node: it is faster, and what is lost later is counted, not
// reported. A handler sees a message at most once: what was written to a connection
// is never written to another, unless the caller said that it is [Idempotent]. What
// was never wholly written, which no receiver can have seen, is sent again by itself.
//
// # What an error says
//
// Every error of a call is an [*Error], and its [Outcome] is the truth about the
// message: [NotDelivered] means that the handler has not seen it and will not,
// so it is safe to send it again; [Handled] means that the handler saw it and
// failed; [Unknown] means that it may or may not have been handled, as after a
// deadline or a lost connection. An unknown, left or failed node is reported at
// once, without the network, with the error of the [Directory].
//
// # Where nodes are found
//
// A Messenger offers its endpoints through its Directory, under [ServiceRep] and
// [ServicePull], and finds those of others there, at each call and by watching
// it. It keeps at most one connection of each kind per node, makes it at the
// first use, and closes it when it has been idle, when the node is gone, or when
// the node is found somewhere else.
package unicast
