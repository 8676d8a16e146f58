// Package sp is Parley's only door to SP sockets (mangos): one type for each
// role, context-aware, with limits, over a TCP transport of its own that speaks
// plain SP on the wire, so that any NNG, nanomsg or mangos program can be the
// other side.
//
// A [Replier] answers the requests of many peers; a [Requester] asks one peer
// over one connection. A [Puller] takes one-way messages from many peers; a
// [Pusher] sends them to one peer over one connection.
//
//	rep, err := sp.ListenReplier("tcp://127.0.0.1:0",
//		func(ctx context.Context, in sp.Inbound) []byte { return bytes.ToUpper(in.Body) },
//		sp.Config{})
//	defer rep.Close()
//	req, err := sp.DialRequester(ctx, rep.URL(), sp.Config{})
//	defer req.Close()
//	reply, err := req.Request(ctx, []byte("hello"))
//
// # Addresses
//
// An address is tcp://host:port, or tls+tcp://host:port with [Config].TLS. The host is
// an IPv4 address, an IPv6 address in brackets or a host name; a listener also takes *
// or nothing for all interfaces, and port 0 for any free one. Addresses of the mangos
// transports that the program has imported (inproc, ipc, ws, wss) work as well, with
// what those transports lack: deadlines and caps for handshakes.
//
// The other way round, [RegisterTransport] lets mangos sockets of the program use the
// transport of this package.
//
// # Who the peer is
//
// Config.Identify says who the peer of a connection is, from its certificate, before
// the connection counts as one, or refuses it. A listener greets a peer last, when it
// has decided to take it, so a dial to a listener that refuses fails.
//
// # Bodies
//
// Bodies given to Request and Send are the caller's again when the call returns; what
// Request returned is the caller's own. A handler has the body of its message until it
// returns, and for good with [Inbound.Take].
//
// # Handlers
//
// A handler runs on the goroutine that reads its connection: a Puller's always, and a
// Replier's as long as it is quick. So small messages pass without a hand-over and
// without an allocation, and a slow handler presses back on its own peer only. The peers
// of a Replier are not held up by a slow handler for longer than some milliseconds.
//
// # Limits
//
// Everything a peer can make this process hold is bounded by [Config]; each limit
// that was hit is counted in [Stats] and logged, at most once a second per kind.
// A listener stops reading a connection that has sent more than is handled, so a
// peer is slowed down to the speed of the handler and disturbs no other peer.
//
// # Connections do not come back
//
// A Requester or Pusher is one connection. When it is lost, Done is closed, every
// call fails, and the owner dials a new one: only the owner knows whether the peer
// still lives there.
package sp
