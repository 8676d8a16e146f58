package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNewerNodeTakesName: a second node is started under a name in use, and is
// the newer one.
func TestNewerNodeTakesName(t *testing.T) {
	t.Parallel()
	old := start(t, "node1", withEpoch(1000))
	third := start(t, "node2")
	join(t, third, old)
	converge(t, old, third)
	thirdEvents := watch(t, third)

	newer := start(t, "node1", withEpoch(2000))
	newerEvents := watch(t, newer)
	join(t, newer, third)

	eventually(t, "the older one stops", func() bool { return old.Err() != nil })
	err := old.Err()
	for _, want := range []string{newer.Addr(), "epoch 2000", "node1"} {
		if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), want) {
			t.Errorf("the loser's error does not say %q: %v", want, err)
		}
	}
	if _, err := old.Lookup("node2", "x"); !errors.Is(err, ErrClosed) || !errors.Is(err, ErrNameTaken) {
		t.Errorf("lookup at the loser: %v", err)
	}
	eventually(t, "the winner hears of it", func() bool { return newer.Stats().Conflicts == 1 })
	eventually(t, "and says so", func() bool { return strings.Contains(newerEvents.of("node1"), "conflict") })
	converge(t, newer, third)
	eventually(t, "the loser is forgotten", func() bool { return third.instanceStatus(old.key) == "" })
	// The newer one asks the older one itself, which may have left before the third
	// node has read what the newer one told it.
	if got := thirdEvents.of("node1"); got != "joined" && got != "left joined" {
		t.Errorf("the third node saw %q, want joined", got)
	}
}

// TestOlderNodeIsTurnedAway: the second node's clock is behind.
func TestOlderNodeIsTurnedAway(t *testing.T) {
	t.Parallel()
	winner := start(t, "node1", withEpoch(2000))
	third := start(t, "node2")
	join(t, third, winner)
	converge(t, winner, third)
	events := watch(t, third)

	late := start(t, "node1", withEpoch(1000))
	if _, err := late.Join(testContext(t), third.Addr()); !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), winner.Addr()) {
		t.Fatalf("Join says %v", err)
	}
	<-late.Done()
	if !errors.Is(late.Err(), ErrNameTaken) {
		t.Errorf("Err is %v", late.Err())
	}
	if _, err := late.Join(testContext(t), third.Addr()); !errors.Is(err, net.ErrClosed) || !errors.Is(err, ErrNameTaken) {
		t.Errorf("Join after the end says %v", err)
	}
	converge(t, winner, third)
	if got := events.of("node1"); got != "" {
		t.Errorf("the third node saw %q", got)
	}
	if winner.Err() != nil {
		t.Errorf("the winner stopped: %v", winner.Err())
	}
}

// TestStaleRecordIsNoConflict: the predecessor was killed a moment ago and the
// clock went backwards since.
func TestStaleRecordIsNoConflict(t *testing.T) {
	t.Parallel()
	old := start(t, "node1", withEpoch(2000))
	third := start(t, "node2")
	join(t, third, old)
	converge(t, old, third)
	_ = old.Close()

	again := start(t, "node1", withEpoch(1000))
	join(t, again, third)
	eventually(t, "the new start is visible", func() bool {
		m, _ := third.Member("node1")
		return m.Status == Alive && m.Instance == again.Instance()
	})
	if again.Epoch() != 2001 {
		t.Errorf("the epoch is %d, want 2001", again.Epoch())
	}
	if s := again.Stats(); s.Conflicts != 0 {
		t.Errorf("%d conflicts were counted", s.Conflicts)
	}
	converge(t, again, third)
}

// TestRaiseIsBounded: a few stale records may be raised over, but two that cannot
// reach each other must not outbid each other for ever.
func TestRaiseIsBounded(t *testing.T) {
	t.Parallel()
	n := start(t, "node1", withEpoch(1000))
	for i := range maxRaises + 1 {
		other := testRecord("node1", uint64(i+1), uint64(2000+1000*i), Alive)
		other.addr = n.transport.advertise // nobody else is there
		cause := n.decide(n.ctx, other)
		if stays := cause == nil; stays != (i < maxRaises) {
			t.Errorf("%d: decide says %v", i, cause)
		}
	}
	if want := uint64(2000 + 1000*(maxRaises-1) + 1); n.Epoch() != want {
		t.Errorf("the epoch is %d, want %d", n.Epoch(), want)
	}
}

func TestManyStarts(t *testing.T) {
	t.Parallel()
	seed := start(t, "seed")
	var last *Node
	for i := range 5 {
		last = start(t, "node1", withEpoch(uint64(1000+i)))
		join(t, last, seed)
		eventually(t, fmt.Sprintf("start %d is visible", i), func() bool {
			m, _ := seed.Member("node1")
			return m.Instance == last.Instance()
		})
		if i < 4 {
			_ = last.Close()
		}
	}
	converge(t, seed, last)
	eventually(t, "the dead are buried", func() bool {
		seed.mu.RLock()
		defer seed.mu.RUnlock()
		return len(seed.table.instances) == 2
	})
	if last.Err() != nil {
		t.Error(last.Err())
	}
}

// TestEpochCannotBeKept: a disk that is full costs a node nothing but the memory
// of its epoch.
func TestEpochCannotBeKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	hub := start(t, "hub")
	stale := start(t, "x", withEpoch(1<<50))
	join(t, stale, hub)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	n := start(t, "x", withEpoch(1000), func(c *Config) { c.DataDir = dir })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Join(testContext(t), hub.Addr()); err != nil {
		t.Fatalf("Join: %v", err)
	}
	eventually(t, "the epoch is raised", func() bool { return n.Epoch() > 1<<50 })
}
