package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// resolveTimeout bounds one DNS lookup, beside the caller's context.
const resolveTimeout = 5 * time.Second

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// lookupFunc resolves a host name; tests replace it.
type lookupFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// hostPort is an address as a person writes it.
type hostPort struct {
	host string     // may be empty; without brackets
	ip   netip.Addr // valid when host is a literal address
	port int        // -1: none was given
}

// parseHostPort takes host:port, host, :port, and IPv6 addresses with and
// without brackets. Errors are *AddressError.
func parseHostPort(s string) (hostPort, error) {
	fault := func(format string, args ...any) (hostPort, error) {
		return hostPort{}, &AddressError{Addr: s, Reason: fmt.Sprintf(format, args...)}
	}
	host, port := s, ""
	switch colons := strings.Count(s, ":"); {
	case strings.Contains(s, "://"):
		return fault("has a scheme; write host:port")
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return fault("has no closing bracket")
		}
		host = s[1:end]
		if rest := s[end+1:]; rest != "" {
			if rest[0] != ':' {
				return fault("has %q after the bracket", rest)
			}
			port = rest
		}
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return fault("has no IPv6 address in its brackets")
		}
	case colons == 1:
		i := strings.IndexByte(s, ':')
		host, port = s[:i], s[i:]
	case colons > 1:
		if _, err := netip.ParseAddr(s); err != nil {
			return fault("is no IPv6 address; with a port, write [address]:port")
		}
	}
	out := hostPort{host: host, port: -1}
	if port != "" {
		n, err := strconv.ParseUint(port[1:], 10, 16)
		if err != nil {
			return fault("has no port number from 0 to 65535 after the colon")
		}
		out.port = int(n)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return fault("has a zone, which gossip cannot carry")
		}
		out.ip = ip.Unmap()
		return out, nil
	}
	if reason := hostNameFault(host); reason != "" {
		return fault("%s", reason)
	}
	return out, nil
}

// hostNameFault returns what is wrong with a host name, or "". The empty one is fine here.
func hostNameFault(host string) string {
	if len(host) > 253 {
		return "has a host name of more than 253 bytes"
	}
	digitsOnly := host != ""
	for i := range len(host) {
		c := host[i]
		digit := '0' <= c && c <= '9' || c == '.'
		digitsOnly = digitsOnly && digit
		if !digit && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_') {
			return fmt.Sprintf("has %q in its host name", c)
		}
	}
	if digitsOnly {
		return "is neither an IP address nor a host name"
	}
	return ""
}

// resolve returns the addresses of h, IPv4 before IPv6, without duplicates.
func (h hostPort) resolve(ctx context.Context, lookup lookupFunc) ([]netip.Addr, error) {
	if h.ip.IsValid() {
		return []netip.Addr{h.ip}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, resolveTimeout,
		fmt.Errorf("the name server did not answer within %v", resolveTimeout))
	defer cancel()
	found, err := lookup(ctx, h.host)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("resolve %s: %w", h.host, cause)
		}
		return nil, err
	}
	var v4, v6 []netip.Addr
	seen := make(map[netip.Addr]bool, len(found))
	for _, ip := range found {
		ip = ip.Unmap()
		if seen[ip] || ip.Zone() != "" {
			continue
		}
		seen[ip] = true
		if ip.Is4() {
			v4 = append(v4, ip)
		} else {
			v6 = append(v6, ip)
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("host %s has no usable address", h.host)
	}
	return append(v4, v6...), nil
}

// hostFault returns why no single host can be told by ip, or "".
func hostFault(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "is no IP address"
	case ip.IsUnspecified():
		return "is the wildcard, which means nothing to another host"
	case ip.IsMulticast(), ip == broadcast4:
		return "is an address of many hosts"
	}
	return ""
}

// bindAddr returns the address to listen on. The empty host is the IPv4 wildcard.
func bindAddr(ctx context.Context, h hostPort, lookup lookupFunc) (netip.Addr, error) {
	if h.host == "" {
		return netip.IPv4Unspecified(), nil
	}
	ips, err := h.resolve(ctx, lookup)
	if err != nil {
		return netip.Addr{}, err
	}
	if ips[0].IsMulticast() || ips[0] == broadcast4 {
		return netip.Addr{}, &AddressError{Addr: h.host, Reason: "is an address of many hosts"}
	}
	return ips[0], nil
}

// advertiseAddr returns the address that others are told when the node listens
// on bind and nothing else was configured. guess says that it had to be looked
// for, and how that went.
func advertiseAddr(bind netip.Addr) (ip netip.Addr, guess string) {
	if !bind.IsUnspecified() {
		return bind, ""
	}
	// The route to a documentation address (RFC 5737, RFC 3849) is the default
	// route. Connecting a UDP socket chooses the source address and sends nothing.
	for _, probe := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", probe)
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
		_ = conn.Close()
		if hostFault(local) == "" && !local.IsLoopback() && !local.IsLinkLocalUnicast() {
			return local, "the address of the default route"
		}
	}
	if best := firstAddress(localAddrs()); best.IsValid() {
		return best, "the first address of an interface that is up"
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), "no address but loopback was found"
}

// firstAddress prefers private to public and IPv4 to IPv6, and takes no
// loopback or link-local address.
func firstAddress(addrs []netip.Addr) netip.Addr {
	var best netip.Addr
	rank := 4
	for _, ip := range addrs {
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() || hostFault(ip) != "" {
			continue
		}
		r := 0
		if !ip.IsPrivate() {
			r += 2
		}
		if ip.Is6() {
			r++
		}
		if r < rank {
			best, rank = ip, r
		}
	}
	return best
}

// localAddrs returns the addresses of the interfaces that are up, without zones.
func localAddrs() []netip.Addr {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, prefix.Addr().Unmap().WithZone(""))
			}
		}
	}
	return out
}
