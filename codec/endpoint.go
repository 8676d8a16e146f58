package codec

import (
	"net/netip"
	"strconv"
	"strings"
)

// Endpoint is where a node offers a service.
type Endpoint struct {
	URL      string // such as tcp://10.0.0.5:41234
	Instance uint64 // of the node that offers it: another value means another start of that node
}

// knownScheme is the one list of the URL schemes that metadata may carry.
func knownScheme(s string) bool {
	switch s {
	case "tcp", "tls+tcp":
		return true
	}
	return false
}

const endpointAllowed = `":PORT" or "tcp://IP:PORT" or "tls+tcp://IP:PORT", the port from 1 to 65535 and the IP ` +
	"a literal address of one host, in all at most 128 bytes"

// ValidEndpoint reports whether s can be advertised for a service: ":PORT" on
// the member's own host, or a URL of a scheme that members know, with a literal
// address (no DNS name, and neither the unspecified, the broadcast nor a
// multicast address) and a port. nil or *NameError.
func ValidEndpoint(s string) error {
	if len(s) > MaxURL {
		return &NameError{What: "endpoint", Value: s, Reason: lengthReason(s), Allowed: endpointAllowed, limit: MaxURL}
	}
	if reason := endpointFault(s); reason != "" {
		return &NameError{What: "endpoint", Value: s, Reason: reason, Allowed: endpointAllowed}
	}
	return nil
}

// endpointFault returns what is wrong with s, or "".
func endpointFault(s string) string {
	if strings.HasPrefix(s, ":") {
		if _, ok := ownPort(s); !ok {
			return "has no valid port"
		}
		return ""
	}
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return "is neither a port nor a URL"
	}
	if !knownScheme(scheme) {
		return "has an unknown scheme"
	}
	hostport, err := netip.ParseAddrPort(rest)
	if err != nil {
		return "has no literal address and port after the scheme"
	}
	host := hostport.Addr().Unmap()
	switch {
	case hostport.Port() == 0:
		return "has port 0"
	case host.Zone() != "":
		return "has a zone, which means nothing on another host"
	case host.IsUnspecified():
		return "has the unspecified address, which nobody can connect to"
	case host.IsMulticast(), host == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "has an address of many hosts"
	}
	return ""
}

// ownPort reads ":PORT" in its only spelling, without leading zeros.
func ownPort(s string) (uint16, bool) {
	if len(s) < 2 || s[0] != ':' || s[1] < '1' || s[1] > '9' {
		return 0, false
	}
	port, err := strconv.ParseUint(s[1:], 10, 16)
	return uint16(port), err == nil
}
