package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func testRecord(name string, instance, epoch uint64, status Status) *record {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(instance)}), 7946)
	r := newRecord(memberKey(name, instance), addr, nil, &codec.Metadata{Name: name, Instance: instance, Epoch: epoch})
	r.member.Status = status
	return r
}

// TestVisible holds what a name stands for, when several instances have it.
func TestVisible(t *testing.T) {
	alive := func(instance, epoch uint64) *record { return testRecord("a", instance, epoch, Alive) }
	gone := func(instance, epoch uint64, s Status) *record { return testRecord("a", instance, epoch, s) }
	for _, c := range []struct {
		name    string
		records []*record
		want    uint64 // instance
		kept    int
	}{
		{"one", []*record{alive(1, 1)}, 1, 1},
		{"newer epoch", []*record{alive(1, 1), alive(2, 2)}, 2, 2},
		{"newer epoch first", []*record{alive(2, 2), alive(1, 1)}, 2, 2},
		{"same epoch, higher instance", []*record{alive(2, 1), alive(1, 1)}, 2, 2},
		{"alive beats departed", []*record{gone(2, 9, Failed), alive(1, 1)}, 1, 1},
		{"superseded one fails", []*record{alive(1, 1), alive(2, 2), gone(1, 1, Failed)}, 2, 1},
		{"newer one fails", []*record{alive(1, 1), alive(2, 2), gone(2, 2, Failed)}, 1, 1},
		{"both gone", []*record{gone(1, 1, Left), gone(2, 2, Failed)}, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := newTable("", 10)
			for _, r := range c.records {
				table.put(r)
			}
			if got := table.visible("a").member.Instance; got != c.want {
				t.Errorf("instance %d is visible, want %d", got, c.want)
			}
			if len(table.names["a"]) != c.kept || len(table.instances) != c.kept {
				t.Errorf("%d and %d records kept, want %d", len(table.names["a"]), len(table.instances), c.kept)
			}
		})
	}
}

// TestTableBooks compares the counters with a recount after random changes.
func TestTableBooks(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		table := newTable("", 8)
		for range 400 {
			instance := r.Uint64N(24) + 1
			name := fmt.Sprintf("n%d", instance%12)
			record := testRecord(name, instance, r.Uint64N(3), []Status{Alive, Left, Failed}[r.IntN(3)])
			record.member.Observer = instance%5 == 0
			if r.IntN(4) == 0 {
				table.remove(record.key)
			} else {
				table.put(record)
			}
			live, observers, inNames := 0, 0, 0
			for _, r := range table.instances {
				if r.alive() {
					live++
				}
				if r.member.Observer {
					observers++
				}
			}
			for name, records := range table.names {
				if len(records) == 0 {
					t.Fatalf("%s has no records", name)
				}
				for i, r := range records {
					if table.instances[r.key] != r || r.member.Observer || r.member.Name != name {
						t.Fatalf("%s holds a stray record", name)
					}
					if i > 0 && (!r.alive() || !records[0].alive() || !records[0].outranks(r)) {
						t.Fatalf("%s keeps a record that can never be visible", name)
					}
					inNames++
				}
			}
			if live != table.live || observers != table.observers || inNames+observers != len(table.instances) {
				t.Fatalf("seed %d: books say %d live, %d observers; counted %d, %d", seed, table.live, table.observers, live, observers)
			}
		}
	}
}

// TestOwnInstanceStays: a node that leaves while a namesake runs still knows itself.
func TestOwnInstanceStays(t *testing.T) {
	own := testRecord("a", 1, 1, Alive)
	table := newTable(own.key, 1)
	table.put(own)
	table.put(testRecord("a", 2, 2, Alive))
	leaving := own.with(Left)
	leaving.member.Since = time.Now().Add(-100 * time.Hour)
	table.put(leaving)
	table.put(testRecord("b", 3, 3, Alive))
	table.expire(time.Now())
	if table.instances[own.key] != leaving || table.visible("a").member.Instance != 2 {
		t.Error("the node has forgotten itself")
	}
	table.remove(memberKey("a", 2))
	if table.visible("a") != leaving {
		t.Error("the node does not stand for its own name")
	}
}

func TestExpire(t *testing.T) {
	table := newTable("", 10)
	now := time.Now()
	for i, c := range []struct {
		status Status
		age    time.Duration
		stays  bool
	}{
		{Alive, 100 * time.Hour, true},
		{Left, LeftRetention - time.Minute, true},
		{Left, LeftRetention + time.Minute, false},
		{Failed, LeftRetention + time.Minute, true},
		{Failed, FailedRetention + time.Minute, false},
	} {
		r := testRecord(fmt.Sprintf("n%d-%v", i, c.stays), uint64(i+1), 1, c.status)
		r.member.Since = now.Add(-c.age)
		table.put(r)
	}
	table.expire(now)
	for _, r := range table.sorted() {
		if r.member.Name[3:] != "true" {
			t.Errorf("%s %s is still listed", r.member.Name, r.member.Status)
		}
	}
	if len(table.names) != 3 {
		t.Errorf("%d names are listed, want 3", len(table.names))
	}
}

func TestEvict(t *testing.T) {
	table := newTable("", 3)
	now := time.Now()
	for i, c := range []struct {
		name   string
		status Status
		age    time.Duration
	}{
		{"failed-long-ago", Failed, 3 * time.Hour},
		{"left-long-ago", Left, 30 * time.Minute},
		{"left-now", Left, 0},
		{"alive-1", Alive, 0}, // evicts left-long-ago
		{"alive-2", Alive, 0}, // evicts left-now
		{"alive-3", Alive, 0}, // evicts failed-long-ago
	} {
		r := testRecord(c.name, uint64(i+1), 1, c.status)
		r.member.Since = now.Add(-c.age)
		table.put(r)
		if gone := []string{3: "left-long-ago", 4: "left-now", 5: "failed-long-ago"}; i >= 3 && table.visible(gone[i]) != nil {
			t.Errorf("after %s, %s is still listed", c.name, gone[i])
		}
		if len(table.names) > 3 {
			t.Errorf("%d names are listed", len(table.names))
		}
	}
}
