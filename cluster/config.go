package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

const (
	// DefaultPort is the gossip port, TCP and UDP, of addresses that name none.
	DefaultPort = 7946

	// DefaultMaxMembers is Config.MaxMembers when it is 0.
	DefaultMaxMembers = 4096

	// maxSeeds bounds RetryJoin, the seeds of one Join, and those remembered.
	maxSeeds = 64
)

// Config is what Start needs. It is copied; the zero value of each field but
// Name is a good default.
type Config struct {
	// Name is required: 1 to 63 bytes of a-z A-Z 0-9 . _ -, beginning with a
	// letter or digit, and different for each node of a cluster.
	Name string

	// Cluster names the cluster, with the alphabet of Name; the same on all its
	// nodes. Nodes of different clusters ignore each other, even when one dials
	// an address that another cluster's node has taken over. It is no secret:
	// Key keeps strangers out. Default none.
	Cluster string

	// Bind is where to listen, TCP and UDP: "host:port", "host", ":port", IPv6
	// with or without brackets. Default 127.0.0.1:7946. Port 0 takes any free
	// one; "0.0.0.0", "[::]" and an empty host mean all interfaces.
	Bind string

	// Advertise is what others are told, "host" or "host:port"; a host name is
	// resolved once, at the start. Default: the host and port of Bind, and for
	// all interfaces the source address of the default route, else the first
	// address of an interface that is up, private before public and IPv4 before
	// IPv6. Set it behind NAT and where there are several networks.
	Advertise string

	// Profile fits the timing to the network. Default LAN.
	Profile Profile

	// Key encrypts and authenticates gossip: 16, 24 or 32 bytes (AES-128, -192
	// or -256, in GCM), the same on all nodes. Without it gossip is plain, and
	// whoever can send a packet can claim anything.
	Key []byte

	// RetryJoin are seeds (see Join) that are tried in the background: until one
	// answers, whenever nobody else is alive, and now and then when one of them
	// is not among the live members. At most 64. The first attempt follows
	// right after Start; leave it empty and call Join to decide when to appear.
	RetryJoin []string

	// Tags are free text about the node; see SetTags.
	Tags map[string]string

	// DataDir keeps the epoch, so that it grows even if the clock goes
	// backwards; it is made when it is missing. Default none: the epoch is the
	// time of the start in milliseconds.
	DataDir string

	// Observer makes a short-lived client: others do not list it, count on it
	// or send it broadcasts.
	Observer bool

	// Logger gets what is decided and what is lost, memberlist's lines
	// included. Default slog.Default().
	Logger *slog.Logger

	// MaxMembers bounds the live members, and with them the departed that are
	// still listed; more are refused and counted. Default 4096.
	MaxMembers int

	hooks hooks
}

// hooks are the seams of this package's tests.
type hooks struct {
	lookup lookupFunc                   // instead of DNS
	cut    func(to netip.AddrPort) bool // reports whether nothing gets to that address
	epoch  uint64                       // instead of the clock

	memberlist func(*memberlist.Config) // changes the profile
}

// settings is a Config that was checked and filled in.
type settings struct {
	Config
	profile   profile
	bind      hostPort
	advertise hostPort // host is "" when none was given
	seeds     []seed
}

// check returns *ConfigError for what can be seen without touching the system.
func (c Config) check() (*settings, error) {
	fault := func(field string, err error) (*settings, error) {
		return nil, &ConfigError{Field: field, Err: err}
	}
	s := &settings{Config: c}
	s.Tags, s.Key, s.RetryJoin = maps.Clone(c.Tags), slices.Clone(c.Key), nil
	if err := codec.ValidName(c.Name); err != nil {
		return fault("Name", err)
	}
	if c.Cluster != "" {
		if err := codec.ValidName(c.Cluster); err != nil {
			return fault("Cluster", err)
		}
	}
	var ok bool
	if s.profile, ok = profiles(c.Profile); !ok {
		return fault("Profile", fmt.Errorf("%q is none of %q, %q and %q", c.Profile, LAN, WAN, Local))
	}
	if n := len(c.Key); n != 0 && n != 16 && n != 24 && n != 32 {
		return fault("Key", fmt.Errorf("is %d bytes long; AES needs 16, 24 or 32", n))
	}
	if c.MaxMembers < 0 || c.MaxMembers == 1 {
		return fault("MaxMembers", fmt.Errorf("is %d; a cluster needs at least 2", c.MaxMembers))
	}
	if c.MaxMembers == 0 {
		s.MaxMembers = DefaultMaxMembers
	}
	if c.Bind == "" {
		s.Bind = fmt.Sprintf("127.0.0.1:%d", DefaultPort)
	}
	var err error
	if s.bind, err = parseHostPort(s.Bind); err != nil {
		return fault("Bind", err)
	}
	if s.bind.port < 0 {
		s.bind.port = DefaultPort
	}
	if c.Advertise != "" {
		if s.advertise, err = parseHostPort(c.Advertise); err != nil {
			return fault("Advertise", err)
		}
		if s.advertise.host == "" {
			return fault("Advertise", &AddressError{Addr: c.Advertise, Reason: "has no host"})
		}
		if ip := s.advertise.ip; ip.IsValid() && hostFault(ip) != "" {
			return fault("Advertise", &AddressError{Addr: c.Advertise, Reason: hostFault(ip)})
		}
		if s.advertise.port == 0 {
			return fault("Advertise", &AddressError{Addr: c.Advertise, Reason: "has port 0, where nobody listens"})
		}
	}
	if s.seeds, err = parseSeeds(c.RetryJoin); err != nil {
		return fault("RetryJoin", err)
	}
	// The epoch is not known yet, but its encoding has one length whatever it is.
	probe := codec.Metadata{Name: c.Name, Instance: ^uint64(0), Epoch: ^uint64(0), Tags: s.Tags}
	if _, err := probe.Append(nil); err != nil {
		return fault("Tags", err)
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	if s.hooks.lookup == nil {
		s.hooks.lookup = lookupHost
	}
	return s, nil
}

// addresses resolves what Bind and Advertise say. The advertised port is 0 when
// it is to be the one that is bound. guess is as in advertiseAddr.
func (s *settings) addresses(ctx context.Context) (bind, advertise netip.AddrPort, guess string, err error) {
	bindIP, err := bindAddr(ctx, s.bind, s.hooks.lookup)
	if err != nil {
		return bind, advertise, "", &ConfigError{Field: "Bind", Err: err}
	}
	bind = netip.AddrPortFrom(bindIP, uint16(s.bind.port))
	if s.advertise.host == "" {
		var ip netip.Addr
		ip, guess = advertiseAddr(bindIP)
		return bind, netip.AddrPortFrom(ip, 0), guess, nil
	}
	ips, err := s.advertise.resolve(ctx, s.hooks.lookup)
	if err == nil && hostFault(ips[0]) != "" {
		err = errors.New("resolves to " + ips[0].String() + ", which " + hostFault(ips[0]))
	}
	if err != nil {
		return bind, advertise, "", &ConfigError{Field: "Advertise", Err: err}
	}
	return bind, netip.AddrPortFrom(ips[0], uint16(max(s.advertise.port, 0))), "", nil
}
