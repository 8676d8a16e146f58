package chaos_test

import (
	"github.com/parley-mesh/parley/sp"
)

// unsent is what a Pusher that has ended accepted and never wrote; false when it
// cannot tell which messages these are, only how many.
func unsent(*sp.Pusher) ([][]byte, bool) { return nil, false }

// scribble overwrites a body that is the caller's again.
func scribble([]byte) {}

// room is where a handler may append its reply to.
func room(sp.Inbound) []byte { return nil }

// fresh is where a caller may append a message to, that was in buf before.
func fresh([]byte) []byte { return nil }
