package sp

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/transport"
)

// What our transport is called in mangos' registry: SP over TCP, and over TLS over
// TCP. The registry is shared by the whole process and the last registration wins, so
// we stay out of the way of mangos' own tcp and tls+tcp, which a program that embeds
// us may use. Our own roles show and take tcp:// and tls+tcp://.
const (
	Scheme    = "parley+tcp"
	SchemeTLS = "parley+tls+tcp"
)

// Private options: settings on the way down to a dialer or listener; the listener
// and the transport's pipes on the way up; and what is to happen when a socket closes.
const (
	optSettings = "PARLEY-SETTINGS"
	optListener = "PARLEY-LISTENER"
	optPipe     = "PARLEY-PIPE"
	optOnClose  = "PARLEY-ON-CLOSE"
)

// RegisterTransport makes [Scheme] and [SchemeTLS] known to mangos, so that any
// mangos socket of this process can listen on and dial parley+tcp://host:port. It may
// be called again. The roles of this package call it themselves.
//
// Such sockets have the limits of a zero [Config], or of the one given as
// [OptionConfig]. Of mangos' options, listeners and dialers take OptionMaxRecvSize
// (0 and anything larger mean [HardMaxMessage]), OptionTLSConfig, OptionKeepAlive and
// OptionKeepAliveTime; OptionNoDelay is accepted and always on. Closing the socket
// ends its pending handshakes and dials. Closing a mangos dialer alone does not, since
// mangos does not tell us; such a dial ends within 10 s and Config.HandshakeTimeout.
func RegisterTransport() { register() }

// register does not happen in an init, so that importing this package alone changes
// nothing.
var register = sync.OnceFunc(func() {
	transport.RegisterTransport(tran{Scheme, false})
	transport.RegisterTransport(tran{SchemeTLS, true})
})

// settings are what the connections of one socket share.
type settings struct {
	maxFrame         int // bytes of an SP message: its header and its body
	maxPipes         int
	maxPending       int
	maxPerPeer       int
	handshakeTimeout time.Duration
	stallTimeout     time.Duration
	queueBytes       int           // not yet written, of a connection
	poll             time.Duration // before a reader parks; see Config.Poll
	vanishTime       time.Duration // see watch
	patient          bool          // a listener's peers, too, may leave unread what they like
	keepAlive        net.KeepAliveConfig
	tls              *tls.Config
	identify         func(context.Context, ConnInfo) (string, error)
	stats            *counters
	log              *logger
}

func newSettings(cfg Config, maxFrame int, stats *counters, log *logger) *settings {
	return &settings{
		maxFrame: maxFrame, maxPipes: cfg.MaxPipes, maxPending: cfg.MaxPending, maxPerPeer: cfg.MaxPerPeer,
		handshakeTimeout: cfg.HandshakeTimeout, stallTimeout: cfg.StallTimeout,
		queueBytes: cfg.QueueBytes, poll: cfg.Poll,
		keepAlive: keepAlive, vanishTime: vanishTime, tls: cfg.TLS, identify: cfg.Identify,
		stats: stats, log: log,
	}
}

// tran is mangos' view of this package: TCP with the deadlines, caps and counts that
// its stock transports lack, and the same bytes on the wire.
type tran struct {
	scheme string
	secure bool // with TLS
}

func (t tran) Scheme() string { return t.scheme }

func (t tran) NewDialer(addr string, sock mangos.Socket) (mangos.TranDialer, error) {
	d := &dialer{tran: t, sock: sock, hostport: strings.TrimPrefix(addr, t.scheme+"://")}
	d.secure = t.secure
	return d, nil
}

func (t tran) NewListener(addr string, sock mangos.Socket) (mangos.TranListener, error) {
	l := newListener(strings.TrimPrefix(addr, t.scheme+"://"), sock.Info())
	l.tran, l.secure = t, t.secure
	return l, nil
}

// userScheme is what users of our roles know a scheme of ours as.
func (t tran) userScheme() string {
	if t.secure {
		return schemeTLSTCP
	}
	return schemeTCP
}
