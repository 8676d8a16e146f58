package sp

import (
	"net"
	"net/netip"
)

// places is a number of places that networks share. While half of them are free,
// everyone gets one: many nodes behind one address are usual, and a crowd is not an
// attack. The other half is for networks that have less than a sixteenth of all. Its
// methods are called under the lock of its owner.
type places struct {
	max    int
	taken  int
	perNet map[netip.Prefix]int
}

func newPlaces(max int) places { return places{max: max, perNet: make(map[netip.Prefix]int)} }

// refusal says why there is no place for one more of what, from that network; ""
// when there is.
func (p *places) refusal(from netip.Prefix, what string) string {
	switch {
	case p.taken >= p.max:
		return "too many " + what
	case p.perNet[from] >= max(1, p.max/16) && p.taken >= (p.max+1)/2:
		return "too many " + what + " from one network"
	}
	return ""
}

func (p *places) take(from netip.Prefix) {
	p.taken++
	p.perNet[from]++
}

func (p *places) give(from netip.Prefix) {
	p.taken--
	if p.perNet[from]--; p.perNet[from] == 0 {
		delete(p.perNet, from)
	}
}

// network is what one owner of addresses usually has: an IPv4 address or an IPv6
// /64. Other kinds of address share one network.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits)
	return p
}
