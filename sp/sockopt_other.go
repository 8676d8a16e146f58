//go:build !linux || 386

package sp

import (
	"net"
	"syscall"
	"time"
)

// socketOptions has none here: the system's own behaviour is left as it is.
func socketOptions(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }

// unanswered is not known here.
func unanswered(net.Conn) time.Duration { return 0 }
