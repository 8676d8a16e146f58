package sp

import (
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/transport"
)

// scheme is what our transport is called in mangos' registry. The registry is
// shared by the whole process and the last registration wins, so we stay out of
// the way of mangos' own tcp, which a program that embeds us may use.
const scheme = "parley+tcp"

// Private options: settings on the way down to a dialer or listener; the listener
// and the transport's pipes on the way up.
const (
	optSettings = "PARLEY-SETTINGS"
	optListener = "PARLEY-LISTENER"
	optPipe     = "PARLEY-PIPE"
)

// register happens when the first socket is made and not in an init, so that
// importing this package alone changes nothing.
var register = sync.OnceFunc(func() { transport.RegisterTransport(tcpTransport{}) })

// keepAlive finds a host that vanished within about half a minute, on a connection
// where nothing waits to be acknowledged. Otherwise the system sends that again
// for many minutes first, and TCP_USER_TIMEOUT is no help: Linux also ends those
// connections by it whose peer is there and does not read, by way of back-pressure.
// So owners of a Requester have LastRead, and owners of a Pusher their own ways.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// settings are what the connections of one socket share.
type settings struct {
	maxFrame         int // bytes of an SP message: its header and its body
	maxPipes         int
	maxPending       int
	handshakeTimeout time.Duration
	stallTimeout     time.Duration
	queueBytes       int           // not yet written, of a connection
	poll             time.Duration // before a reader parks; see Config.Poll
	stats            *counters
	log              *logger
}

func newSettings(cfg Config, maxFrame int, stats *counters, log *logger) *settings {
	return &settings{
		maxFrame: maxFrame, maxPipes: cfg.MaxPipes, maxPending: cfg.MaxPending,
		handshakeTimeout: cfg.HandshakeTimeout, stallTimeout: cfg.StallTimeout,
		queueBytes: cfg.QueueBytes, poll: cfg.Poll,
		stats: stats, log: log,
	}
}

// errForeign is for a host program that found our scheme in the registry.
var errForeign = errors.New(scheme + " is private to Parley's package sp; use tcp")

// tcpTransport is mangos' view of this package: TCP with the deadlines, caps and
// counts that its stock transport lacks, and the same bytes on the wire.
type tcpTransport struct{}

func (tcpTransport) Scheme() string { return scheme }

func (tcpTransport) NewDialer(addr string, sock mangos.Socket) (mangos.TranDialer, error) {
	return &dialer{hostport: strings.TrimPrefix(addr, scheme+"://"), info: sock.Info()}, nil
}

func (tcpTransport) NewListener(addr string, sock mangos.Socket) (mangos.TranListener, error) {
	return newListener(strings.TrimPrefix(addr, scheme+"://"), sock.Info()), nil
}
