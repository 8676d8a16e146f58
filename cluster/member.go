package cluster

import (
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// Status of a member.
type Status string

const (
	Alive  Status = "alive"
	Left   Status = "left"   // it said goodbye; listed for an hour
	Failed Status = "failed" // it did not; listed, and tried again, for a day
)

// How long the departed stay in Members. When alive and departed together are
// more than Config.MaxMembers, those that left longest ago go first.
const (
	LeftRetention   = time.Hour
	FailedRetention = 24 * time.Hour
)

// Endpoint is where a node offers a service.
type Endpoint = codec.Endpoint

// Member is a copy; it never changes after it was returned.
type Member struct {
	Name     string
	Addr     string // gossip address, ip:port
	Status   Status
	Tags     map[string]string   // never nil
	Services map[string]Endpoint // never nil; the last known when it is not alive
	Instance uint64              // random, another for each start
	Epoch    uint64              // grows with each start
	Observer bool
	Since    time.Time // when Status began, by the local clock
}

func (m Member) clone() Member {
	m.Tags, m.Services = maps.Clone(m.Tags), maps.Clone(m.Services)
	return m
}

// record is one instance. It is never changed, only replaced, so that what
// points to it needs no lock.
type record struct {
	key    string // the name that memberlist knows the instance by
	addr   netip.AddrPort
	meta   []byte // as gossiped
	member Member // its maps are never changed
}

// outranks says which of two instances of one name is to be believed.
func (r *record) outranks(other *record) bool {
	if r.member.Epoch != other.member.Epoch {
		return r.member.Epoch > other.member.Epoch
	}
	return r.member.Instance > other.member.Instance
}

func (r *record) alive() bool { return r.member.Status == Alive }

// with returns a copy of r in another status.
func (r *record) with(status Status) *record {
	c := *r
	c.member.Status, c.member.Since = status, time.Now()
	return &c
}

// newRecord builds the record of a member that is alive (or says that it
// leaves) as of now.
func newRecord(key string, addr netip.AddrPort, meta []byte, md *codec.Metadata) *record {
	services := make(map[string]Endpoint, len(md.Services))
	for name, endpoint := range md.Services {
		services[name] = Endpoint{URL: endpointURL(endpoint, addr.Addr()), Instance: md.Instance}
	}
	tags := make(map[string]string, len(md.Tags))
	maps.Copy(tags, md.Tags)
	status := Alive
	if md.Leaving {
		status = Left
	}
	return &record{key: key, addr: addr, meta: meta, member: Member{
		Name:     md.Name,
		Addr:     addr.String(),
		Status:   status,
		Tags:     tags,
		Services: services,
		Instance: md.Instance,
		Epoch:    md.Epoch,
		Observer: md.Observer,
		Since:    time.Now(),
	}}
}

// endpointURL completes ":PORT" with the member's own host, wherever that is now.
func endpointURL(endpoint string, host netip.Addr) string {
	if port, own := strings.CutPrefix(endpoint, ":"); own {
		return "tcp://" + net.JoinHostPort(host.String(), port)
	}
	return endpoint
}
