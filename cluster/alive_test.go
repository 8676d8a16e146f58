package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// impostor joins with plain memberlist and the metadata it was given.
type impostor struct{ meta []byte }

func (i *impostor) NodeMeta(int) []byte             { return i.meta }
func (*impostor) NotifyMsg([]byte)                  {}
func (*impostor) GetBroadcasts(int, int) [][]byte   { return nil }
func (*impostor) LocalState(bool) []byte            { return []byte("something else") }
func (*impostor) MergeRemoteState(_ []byte, _ bool) {}

func TestImpostors(t *testing.T) {
	t.Parallel()
	meta := func(md codec.Metadata) []byte {
		b, err := md.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	honest := codec.Metadata{Name: "node9", Instance: 9, Epoch: 1}
	for _, c := range []struct {
		what, name string
		meta       []byte
		count      func(Rejected) uint64
	}{
		{"no metadata", "node9", nil, func(r Rejected) uint64 { return r.Metadata }},
		{"garbage", "node9", []byte("{\"name\":\"node9\"}"), func(r Rejected) uint64 { return r.Metadata }},
		{"too much", memberKey("node9", 9), append(meta(honest), make([]byte, 300)...), func(r Rejected) uint64 { return r.Metadata }},
		{"name without instance", "node9", meta(honest), func(r Rejected) uint64 { return r.Name }},
		{"another's metadata", memberKey("node8", 9), meta(honest), func(r Rejected) uint64 { return r.Name }},
		{"line break", "node9\n" + memberKey("node9", 9), meta(honest), func(r Rejected) uint64 { return r.Name }},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			log := &recorder{}
			n := start(t, "node1", func(c *Config) { c.Logger = log.logger(slog.LevelInfo) })
			cfg := memberlist.DefaultLANConfig()
			cfg.Name, cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = c.name, "127.0.0.1", 0, 0
			cfg.Label = n.settings.Cluster
			cfg.Delegate, cfg.LogOutput = &impostor{c.meta}, io.Discard
			ml, err := memberlist.Create(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ml.Shutdown() })
			if _, err := ml.Join([]string{n.Addr()}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it was refused", func() bool { return c.count(n.Stats().Rejected) > 0 })
			eventually(t, "its state was refused", func() bool { return n.Stats().Malformed > 0 })
			if len(n.Members()) != 1 || n.ml.NumMembers() != 1 {
				t.Errorf("the members are %v", n.Members())
			}
			if !log.has("WARN", "refused a member") {
				t.Error("it was not logged")
			}
			for _, line := range log.lines {
				if strings.Count(line, "\n") != 1 {
					t.Errorf("a log line of several: %q", line)
				}
			}
		})
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	d := &delegate{n}
	for _, c := range []struct {
		what   string
		change func(*memberlist.Node)
		count  func(Rejected) uint64 // nil: it is fine
	}{
		{"fine", func(*memberlist.Node) {}, nil},
		{"IPv6", func(p *memberlist.Node) { p.Addr = net.ParseIP("fd00::1") }, nil},
		{"address of 16 bytes", func(p *memberlist.Node) { p.Addr = net.IPv4(10, 0, 0, 1).To16() }, nil},
		{"no address", func(p *memberlist.Node) { p.Addr = nil }, func(r Rejected) uint64 { return r.Address }},
		{"address of 5 bytes", func(p *memberlist.Node) { p.Addr = make([]byte, 5) }, func(r Rejected) uint64 { return r.Address }},
		{"wildcard", func(p *memberlist.Node) { p.Addr = net.IPv4zero }, func(r Rejected) uint64 { return r.Address }},
		{"IPv6 wildcard", func(p *memberlist.Node) { p.Addr = net.IPv6unspecified }, func(r Rejected) uint64 { return r.Address }},
		{"multicast", func(p *memberlist.Node) { p.Addr = net.IPv4(224, 0, 0, 1) }, func(r Rejected) uint64 { return r.Address }},
		{"broadcast", func(p *memberlist.Node) { p.Addr = net.IPv4bcast }, func(r Rejected) uint64 { return r.Address }},
		{"port 0", func(p *memberlist.Node) { p.Port = 0 }, func(r Rejected) uint64 { return r.Address }},
		{"newer protocol", func(p *memberlist.Node) { p.PMin, p.PMax, p.PCur = 3, 9, 9 }, func(r Rejected) uint64 { return r.Protocol }},
		{"delegate protocol", func(p *memberlist.Node) { p.DMin, p.DMax, p.DCur = 1, 1, 1 }, func(r Rejected) uint64 { return r.Protocol }},
	} {
		t.Run(c.what, func(t *testing.T) {
			peer := claimOf(t, &codec.Metadata{Name: "node2", Instance: 7, Epoch: 1})
			c.change(peer)
			before := n.Stats().Rejected
			err := d.NotifyAlive(peer)
			after := n.Stats().Rejected
			if c.count == nil {
				if err != nil || after != before {
					t.Errorf("%v, %+v", err, after)
				}
			} else if err == nil || c.count(after) != c.count(before)+1 {
				t.Errorf("%v, %+v", err, after)
			}
		})
	}
}

// FuzzNotifyAlive: whatever a stranger claims, the table stays sane.
func FuzzNotifyAlive(f *testing.F) {
	md := codec.Metadata{Name: "node2", Instance: 7, Epoch: 1, Tags: map[string]string{"a": "b"}, Services: map[string]string{"s": ":1"}}
	meta, err := md.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(memberKey("node2", 7), meta, []byte{10, 0, 0, 1}, uint16(7946), byte(2))
	f.Add("", []byte{}, []byte{}, uint16(0), byte(0))
	n := &Node{table: newTable(memberKey("node1", 1), 4), name: "node1", key: memberKey("node1", 1), log: slog.New(slog.DiscardHandler),
		news: make(chan struct{}), conflicts: newConflicts(), rejoinNow: make(chan struct{}, 1)}
	d := &delegate{n}
	f.Fuzz(func(t *testing.T, name string, meta, addr []byte, port uint16, version byte) {
		peer := &memberlist.Node{Name: name, Meta: meta, Addr: addr, Port: port, PMin: 1, PMax: 5, PCur: version}
		if d.NotifyAlive(peer) != nil {
			return
		}
		d.NotifyJoin(peer)
		r := n.table.instances[name]
		if r == nil {
			t.Fatalf("%q was accepted and forgotten", name)
		}
		if codec.ValidName(r.member.Name) != nil || !r.addr.IsValid() || r.addr.Port() == 0 || r.member.Instance == 0 {
			t.Fatalf("accepted %+v", r.member)
		}
		d.NotifyLeave(peer)
		n.mu.Lock()
		n.table.remove(name)
		n.mu.Unlock()
	})
}

func TestMaxMembers(t *testing.T) {
	t.Parallel()
	n := start(t, "node1", func(c *Config) { c.MaxMembers = 3 })
	var others []*Node
	for i := range 2 {
		other := start(t, fmt.Sprintf("other%d", i))
		join(t, other, n)
		waitStatus(t, n, other.Name(), Alive)
		others = append(others, other)
	}
	late := start(t, "late")
	if _, err := late.Join(testContext(t), n.Addr()); err != nil {
		t.Fatal(err) // it cannot know
	}
	eventually(t, "it is refused", func() bool { return n.Stats().Rejected.Members > 0 })
	if _, known := n.Member("late"); known || len(n.Members()) != 3 {
		t.Errorf("the members are %v", n.Members())
	}
	if err := others[0].Leave(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool {
		_, _ = late.Join(testContext(t), n.Addr())
		return status(n, "late") == Alive
	})
	if len(n.Members()) > 3 {
		t.Errorf("the members are %v", n.Members())
	}
}

// TestProtocolOfKnownMember: what a message says of memberlist's protocol is
// looked at for members that are known too; a wrong one that is believed makes
// every exchange of states fail.
func TestProtocolOfKnownMember(t *testing.T) {
	t.Parallel()
	ns := startCluster(t, "a", "b")
	a, b := ns[0], ns[1]
	a.mu.RLock()
	known := a.table.instances[b.key]
	a.mu.RUnlock()
	claim := &memberlist.Node{
		Name: b.key, Addr: known.addr.Addr().AsSlice(), Port: known.addr.Port(), Meta: known.meta,
		PMin: 1, PMax: 5, PCur: memberlistProtocol,
	}
	if err := a.consider(claim); err != nil {
		t.Fatalf("the truth is refused: %v", err)
	}
	claim.PMin, claim.PCur = 3, 3
	if err := a.consider(claim); err == nil || a.Stats().Rejected.Protocol != 1 {
		t.Errorf("a wrong protocol is believed: %v, %+v", err, a.Stats().Rejected)
	}
}
