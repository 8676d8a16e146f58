package sp

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A host that vanishes says nothing, and a connection to it ends as follows.
//
// While nothing is on its way, keep-alive asks, and gives up within half a minute.
//
// While something is on its way, keep-alive is silent, and the system sends again for a
// quarter of an hour. TCP_USER_TIMEOUT shortens that, but Linux (6.18) does not tell a
// host that vanished from a peer that does not read: measured with 10 s, a connection
// whose peer keeps its window closed ends after 10.7 s, also when the peer reads 500
// bytes a second; a black hole after 10.4 s; and an idle one no longer as keep-alive has
// it (6 s) but after 10.1 s. So
//
//   - a listener has it, at userTimeout: its peers are cut off for not reading within
//     StallTimeout anyway, of which it is at least three times as much, and it is the
//     half minute of keep-alive;
//   - a dialer has it not: the peer of a Pusher or Requester may press back for as long
//     as it likes. There, a watch looks at what the system knows of the connection.

// keepAlive gives a silent peer 15 s and three questions 5 s apart.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// vanishTime is how long a host that should answer may be silent.
const vanishTime = 30 * time.Second

// userTimeout is TCP_USER_TIMEOUT of a listener's connections; 0 is none.
func (set *settings) userTimeout() time.Duration {
	if set.patient {
		return 0
	}
	return max(vanishTime, 3*set.stallTimeout)
}

// errVanished is the end of a connection to a host that does not answer any more.
var errVanished = errors.New("the peer's host has vanished: nothing comes back from it")

// watch looks at a connection from time to time and calls vanished when its peer has
// acknowledged nothing for limit though it should have. stop ends it and is to be called
// once the connection is closed.
func watch(conn net.Conn, limit time.Duration, vanished func()) (stop func()) {
	w := &connWatch{}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(limit/3, func() {
		if unanswered(conn) >= limit {
			vanished()
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.stopped {
			w.timer.Reset(limit / 3)
		}
	})
	return w.stop
}

type connWatch struct {
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

func (w *connWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
