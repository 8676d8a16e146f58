package sp

import (
	"net"
	"net/netip"
	"sync"
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
	case p.full():
		return "too many " + what
	case p.perNet[from] >= max(1, p.max/16) && p.taken >= (p.max+1)/2:
		return "too many " + what + " from one network"
	}
	return ""
}

func (p *places) full() bool { return p.taken >= p.max }

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

// roster is the places for connections of a listener: those of peers with a name are
// shared by name, the others by network.
type roster struct {
	maxPerPeer int
	stats      *counters

	mu      sync.Mutex
	places  places
	perPeer map[string]int // those with a name
}

func newRoster(set *settings) *roster {
	return &roster{maxPerPeer: set.maxPerPeer, stats: set.stats, places: newPlaces(set.maxPipes), perPeer: make(map[string]int)}
}

// hopeless says early why there will be no place for a peer from that network; "" when
// there may be. While peers have names, only the total is known before they have told.
func (r *roster) hopeless(from netip.Prefix, named bool) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !named {
		return r.places.refusal(from, "connections")
	}
	if r.places.full() {
		return "too many connections"
	}
	return ""
}

// take takes a place, or says why there is none.
func (r *roster) take(from netip.Prefix, name string) (refusal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case name == "":
		refusal = r.places.refusal(from, "connections")
	case r.places.full():
		refusal = "too many connections"
	case r.perPeer[name] >= r.maxPerPeer:
		refusal = "too many connections of one peer"
		r.stats.overPerPeer.Add(1)
	}
	if refusal != "" {
		return refusal
	}
	r.places.take(from)
	if name != "" {
		r.perPeer[name]++
	}
	return ""
}

func (r *roster) give(from netip.Prefix, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places.give(from)
	if name == "" {
		return
	}
	if r.perPeer[name]--; r.perPeer[name] == 0 {
		delete(r.perPeer, name)
	}
}

func (r *roster) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.places.taken
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
