package sp

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const userScheme = "tcp://"

// maxURL is longer than any tcp://host:port can be: a DNS name has 253 bytes.
const maxURL = 300

// parseURL takes tcp://host:port apart and returns host:port, in the form package
// net wants. A listener may leave the host out (or write *) and give port 0.
// Addresses arrive by gossip, from strangers, so nothing is taken on trust.
func parseURL(url string, listen bool) (hostport string, err error) {
	bad := func(reason string) (string, error) {
		if len(url) > maxURL {
			url = url[:maxURL] + "…"
		}
		return "", &URLError{URL: url, Reason: reason}
	}
	if len(url) > maxURL {
		return bad("too long")
	}
	rest, ok := strings.CutPrefix(url, userScheme)
	if !ok {
		if scheme, _, found := strings.Cut(url, "://"); found {
			return bad("scheme " + scheme + " is not supported")
		}
		return bad("no scheme")
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
	return net.JoinHostPort(host, port), nil
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
