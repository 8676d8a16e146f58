package sp

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"go.nanomsg.org/mangos/v3/transport"
)

// The schemes of our own transport as users write them.
const (
	schemeTCP    = "tcp"
	schemeTLSTCP = "tls+tcp"
)

// maxURL is longer than any tls+tcp://host:port can be: a DNS name has 253 bytes.
const maxURL = 300

// address is a URL that was understood.
type address struct {
	scheme  string // in mangos' registry
	rest    string // host:port as package net wants it; with foreign, what came after ://
	foreign bool   // another transport than ours
}

// inner is the address as mangos knows it.
func (a address) inner() string { return a.scheme + "://" + a.rest }

// parseURL takes tcp://host:port or tls+tcp://host:port apart. A listener may leave
// the host out (or write *) and give port 0. Addresses arrive by gossip, from
// strangers, so nothing is taken on trust: with a TLS configuration, an address
// cannot talk us into plain TCP.
//
// Other schemes are those of the mangos transports that the program has imported.
func parseURL(url string, listen bool, tlsConfig *tls.Config) (address, error) {
	bad := func(reason string) (address, error) {
		if len(url) > maxURL {
			url = url[:maxURL] + "…"
		}
		return address{}, &URLError{URL: url, Reason: reason}
	}
	if len(url) > maxURL {
		return bad("too long")
	}
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return bad("no scheme")
	}
	a := address{scheme: Scheme, rest: rest}
	switch scheme {
	case schemeTCP:
		if tlsConfig != nil {
			return bad("Config.TLS is set and tcp is not encrypted; use tls+tcp")
		}
	case schemeTLSTCP:
		if tlsConfig == nil {
			return bad("tls+tcp needs Config.TLS")
		}
		a.scheme = SchemeTLS
	case Scheme, SchemeTLS:
		return bad("scheme " + scheme + " is for mangos sockets; use " + strings.TrimPrefix(scheme, "parley+"))
	default:
		if transport.GetTransport(scheme) == nil {
			return bad("scheme " + strconv.Quote(scheme) + " is not supported; those known here are " + knownSchemes())
		}
		if scheme == "ws" && tlsConfig != nil { // it would take it, and no notice of it
			return bad("Config.TLS is set and ws is not encrypted; use wss")
		}
		return address{scheme: scheme, rest: rest, foreign: true}, nil
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return bad(reasonOf(err))
	}
	if reason := checkPort(port, listen); reason != "" {
		return bad(reason)
	}
	if listen && host == "*" {
		host = ""
	}
	if reason := checkHost(host, listen); reason != "" {
		return bad(reason)
	}
	a.rest = net.JoinHostPort(host, port)
	return a, nil
}

// knownSchemes lists ours and those of mangos' transports that were imported; a
// transport of somebody else's works too, but mangos cannot list them.
func knownSchemes() string {
	known := []string{schemeTCP, schemeTLSTCP}
	for _, s := range []string{"inproc", "ipc", "ws", "wss"} {
		if transport.GetTransport(s) != nil {
			known = append(known, s)
		}
	}
	return strings.Join(known, ", ")
}

func reasonOf(err error) string {
	if a, ok := err.(*net.AddrError); ok {
		return a.Err
	}
	return err.Error()
}

func checkPort(port string, listen bool) string {
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case port == "":
		return "missing port"
	case err != nil:
		return "port " + strconv.Quote(port) + " is not a number up to 65535"
	case n == 0 && !listen:
		return "port 0 cannot be dialed"
	}
	return ""
}

func checkHost(host string, listen bool) string {
	if host == "" {
		if listen {
			return ""
		}
		return "missing host"
	}
	if strings.Contains(host, ":") {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return "not an IPv6 address"
		}
		host = addr.Zone()
	}
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return "host has a character that no host name has"
		}
	}
	return ""
}
