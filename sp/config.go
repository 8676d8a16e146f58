package sp

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"
)

// Sizes of a message's body, in bytes. The 4 KiB are room for an envelope around
// a user's round number.
const (
	DefaultMaxMessage = 1<<20 + 4<<10
	HardMaxMessage    = 16<<20 + 4<<10 // no Config may go beyond
)

// Config is shared by all roles and copied on entry; the zero value is good. A
// zero field means its default, a negative one is an error.
type Config struct {
	// MaxMessage is the largest message body in bytes, sent or received; default
	// DefaultMaxMessage, at most HardMaxMessage. A larger one is refused before it
	// is sent; a peer that announces a larger one is disconnected before any of it
	// is read.
	MaxMessage int

	// QueueBytes bounds one connection; default 8 MiB. Pusher and Requester: bytes
	// accepted and not yet written, with 8 bytes for the length of each message and 4
	// for the id of a request; Send and Request wait beyond it. Replier: bytes of
	// requests being handled by goroutines of their own, with their replies and 256
	// bytes each; beyond it, or when a quarter of it is of replies that the peer does
	// not read, the connection is not read. One message is always admitted. A Puller
	// holds one message for each connection.
	QueueBytes int

	// TotalBytes bounds, for a Replier, what all connections together count to their
	// QueueBytes, with 16 KiB more for each request, which bounds its goroutines;
	// default 256 MiB. A connection of which nothing is being handled is always allowed
	// one request, so that the busy cannot starve it. One more message of each
	// connection, the one being read or handled where it is read, does not count.
	TotalBytes int

	// InFlight is, for a Replier, how many requests of one connection are handled at
	// once, when that takes goroutines of their own; beyond it the connection is not read. For a Requester, how many may be
	// outstanding; further callers wait. Default 256.
	InFlight int

	// MaxPipes is how many connections a listener keeps; default 1024. A connection
	// counts until its last message is handled, even after it broke. While half of
	// the places are free, everyone gets one; the other half is for those IPv4
	// addresses and IPv6 /64 networks that have less than a sixteenth of all (64).
	// Further connections are closed at once.
	MaxPipes int

	// MaxPending is how many connections of a listener may be in the handshake at
	// once; default 128. Networks share these places in the same way. Further
	// connections are closed at once.
	MaxPending int

	// MaxPerPeer is how many connections of a listener may be of one peer, when
	// Identify gives it a name; default 8. A peer needs one. When its host or its way
	// to us vanishes, up to half a minute passes until the system notices, and
	// somebody who gives up a silent connection after six seconds comes again five
	// times meanwhile. Further connections are closed. Peers with a name are not
	// counted by network.
	MaxPerPeer int

	// HandshakeTimeout bounds, on both sides, all from the connection to the pipe: TLS,
	// the exchange of the SP greetings, and Identify; default 5 s.
	HandshakeTimeout time.Duration

	// StallTimeout is how long a peer may, once it began a message, leave the next
	// 64 KiB of it unsent, and a Replier's peer the next 64 KiB of a reply unread,
	// and twice as long all of a reply (and as long again for each MiB of it); then
	// it is disconnected. Default 10 s. A silent connection is not a stalled one. A
	// Requester or Pusher waits for a peer that does not read as long as the
	// connection lasts: that peer may be pressing back.
	StallTimeout time.Duration

	// Poll is for how long a connection's reader polls the socket before it parks,
	// while traffic is one message at a time and that finds the next one; default 0,
	// which is not at all. Some 20 µs, or 50 on virtual machines, can shorten a lone
	// round trip between two processes that have a core each to a quarter; both need it
	// for that, and with one core it only does harm. It costs processor time: a message that
	// does not come in time costs all of Poll, once; a reader whose messages often do
	// not stops polling for a while, and an idle connection does not poll.
	Poll time.Duration

	// TLS is for tls+tcp:// addresses, which need it: a listener's with certificates, a
	// dialer's with what to check the listener's with. It is cloned; MinVersion is TLS
	// 1.3 unless it says otherwise, and ServerName of a dialer the host of the address.
	// tcp:// is an error together with it, so that nobody's address can lead to a
	// plain connection.
	TLS *tls.Config

	// Identify, if not nil, says who the peer of a connection is, from its certificate
	// or its address, or that it is nobody to talk to: an error refuses it. It is called
	// on both sides, concurrently, before the connection counts as one; at a dialer's
	// it is the dial that fails, and a dial to a listener that refuses fails as well.
	// It must return when ctx ends, which is with HandshakeTimeout, with the dial's
	// context, or when the listener is closed. A listener allows each name MaxPerPeer
	// connections; "" is a peer without a name.
	Identify func(ctx context.Context, c ConnInfo) (name string, err error)

	// Logger is told what was refused, cut off and lost; default slog.Default().
	Logger *slog.Logger
}

// normalized checks cfg and fills in the defaults.
func (cfg Config) normalized() (Config, error) {
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{
		{"MaxMessage", &cfg.MaxMessage, DefaultMaxMessage},
		{"QueueBytes", &cfg.QueueBytes, 8 << 20},
		{"TotalBytes", &cfg.TotalBytes, 256 << 20},
		{"InFlight", &cfg.InFlight, 256},
		{"MaxPipes", &cfg.MaxPipes, 1024},
		{"MaxPending", &cfg.MaxPending, 128},
		{"MaxPerPeer", &cfg.MaxPerPeer, 8},
	} {
		if *f.v < 0 {
			return cfg, fmt.Errorf("sp: Config.%s is negative (%d)", f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if cfg.MaxMessage > HardMaxMessage {
		return cfg, fmt.Errorf("sp: Config.MaxMessage is %d bytes, at most %d are possible", cfg.MaxMessage, HardMaxMessage)
	}
	for _, f := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"HandshakeTimeout", &cfg.HandshakeTimeout, 5 * time.Second},
		{"StallTimeout", &cfg.StallTimeout, 10 * time.Second},
		{"Poll", &cfg.Poll, 0},
	} {
		if *f.v < 0 {
			return cfg, fmt.Errorf("sp: Config.%s is negative (%v)", f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		if cfg.TLS.MinVersion == 0 {
			cfg.TLS.MinVersion = tls.VersionTLS13
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg, nil
}
