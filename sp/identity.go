package sp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// ConnInfo is a connection whose peer Config.Identify is to name: it shook hands and
// carries no messages yet.
type ConnInfo struct {
	Remote, Local net.Addr
	// TLS is the state of the connection, with the peer's certificates; nil without
	// TLS.
	TLS *tls.ConnectionState
	// Dialed is true on the side that dialed.
	Dialed bool
}

// peerInfo is who the other side of a pipe is.
type peerInfo struct {
	name string               // by Config.Identify, or ""
	tls  *tls.ConnectionState // nil without TLS
}

// unidentified is why Config.Identify refused a peer.
type unidentified struct{ err error }

func (e *unidentified) Error() string { return "peer refused: " + e.err.Error() }
func (e *unidentified) Unwrap() error { return e.err }

// name asks who the peer is, until deadline.
func (set *settings) name(ctx context.Context, conn net.Conn, state *tls.ConnectionState, dialed bool, deadline time.Time) (peerInfo, error) {
	peer := peerInfo{tls: state}
	if set.identify == nil {
		return peer, nil
	}
	ctx, cancel := context.WithDeadlineCause(ctx, deadline,
		fmt.Errorf("not identified within %v: %w", set.handshakeTimeout, context.DeadlineExceeded))
	defer cancel()
	name, err := set.identify(ctx, ConnInfo{Remote: conn.RemoteAddr(), Local: conn.LocalAddr(), TLS: state, Dialed: dialed})
	if err == nil && ctx.Err() != nil {
		err = contextError(ctx) // it took too long, and whoever waited has gone
	}
	if err != nil {
		return peer, &unidentified{err}
	}
	peer.name = name
	return peer, nil
}
