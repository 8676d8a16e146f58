package cluster

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestDigest(t *testing.T) {
	a, b := newTable("", 10), newTable("", 10)
	var records []*record
	for i := range 5 {
		records = append(records, testRecord(fmt.Sprintf("n%d", i), uint64(i+1), 1, Alive))
	}
	for i := range records {
		a.put(records[i])
		b.put(records[len(records)-1-i])
	}
	if a.digest != b.digest || a.digest == 0 {
		t.Errorf("the order counts: %x, %x", a.digest, b.digest)
	}
	before := a.digest
	change := func(what string, r *record) {
		a.put(r)
		if a.digest == before {
			t.Errorf("%s does not count", what)
		}
		a.put(records[0])
		if a.digest != before {
			t.Errorf("%s leaves a trace", what)
		}
	}
	failed := records[0].with(Failed)
	change("a failure", failed)
	moved := *records[0]
	moved.member.Addr = "10.0.0.99:1"
	change("an address", &moved)
	updated := *records[0]
	updated.meta = []byte("x")
	change("metadata", &updated)
	for _, r := range records {
		a.remove(r.key)
	}
	if a.digest != 0 {
		t.Errorf("an empty table has digest %x", a.digest)
	}
}

func TestComparison(t *testing.T) {
	c := newComparison()
	now := time.Now()
	const settle, most = 2 * time.Second, 20 * time.Second
	met := func(same bool) bool { return c.met(same, now, settle, most) }
	for range 5 {
		if met(false) {
			t.Fatal("repaired while gossip was under way")
		}
	}
	now = now.Add(settle)
	if met(false) || met(true) || met(false) {
		t.Fatal("repaired after one difference")
	}
	now = now.Add(settle)
	if met(false) || !met(false) {
		t.Fatal("not repaired after two differences")
	}
	// It does not help: the repairs come less and less often.
	repairs := 0
	for range 120 {
		now = now.Add(time.Second)
		if met(false) {
			repairs++
		}
	}
	if repairs < 4 || repairs > 12 {
		t.Errorf("%d repairs in two minutes", repairs)
	}
	// Now and then somebody agrees, which changes nothing about that.
	repairs = 0
	for i := range 600 {
		now = now.Add(time.Second)
		if met(i%10 == 0) {
			repairs++
		}
	}
	if repairs < 10 || repairs > 40 {
		t.Errorf("%d repairs in ten minutes among neighbours of whom some agree", repairs)
	}
	// After a time without a difference a new one is repaired at once.
	now = now.Add(most * 2)
	met(true)
	now = now.Add(settle)
	if met(false) || !met(false) {
		t.Error("a new difference is not repaired")
	}
}

// missedNews starts three nodes of which a has not heard that late joined hub;
// memberlist itself would never mend that.
func missedNews(t *testing.T) (a, hub, late *Node) {
	t.Helper()
	w := newWall()
	never := func(c *Config) {
		c.hooks.memberlist = func(m *memberlist.Config) { m.PushPullInterval = 0 }
	}
	a, hub = w.start(t, "a", 0, never), w.start(t, "hub", 1, never)
	join(t, hub, a)
	converge(t, a, hub)
	w.set(true)
	late = w.start(t, "late", 1, never)
	join(t, late, hub)
	// memberlist transmits the news four times, every 100 ms to two nodes.
	time.Sleep(time.Second)
	w.set(false)
	if status(a, "hub") != Alive || status(a, "late") != "" {
		t.Skipf("the machine was too slow for this: hub is %q, late is %q", status(a, "hub"), status(a, "late"))
	}
	return a, hub, late
}

func TestRepair(t *testing.T) {
	t.Parallel()
	a, hub, late := missedNews(t)
	converge(t, a, hub, late)
	if a.Stats().Repairs+hub.Stats().Repairs+late.Stats().Repairs == 0 {
		t.Error("it was not a repair that helped")
	}
}

// TestRepairAmongChanges: the same while somebody's tags never stop changing.
func TestRepairAmongChanges(t *testing.T) {
	t.Parallel()
	a, hub, late := missedNews(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				_ = hub.SetTags(map[string]string{"i": strconv.Itoa(i)})
			case <-stop:
				return
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	converge(t, a, hub, late)
}

func TestClustersStayApart(t *testing.T) {
	t.Parallel()
	in := func(cluster string) option { return func(c *Config) { c.Cluster = cluster } }
	blue := start(t, "node1", in("blue"))
	for _, other := range []string{"red", ""} {
		n := start(t, "node1", in(other))
		_, err := n.Join(testContext(t), blue.Addr())
		if err == nil || len(n.Members()) != 1 || len(blue.Members()) != 1 {
			t.Fatalf("%q joined blue: %v", other, err)
		}
		if want := "seed " + blue.Addr() + " hung up: it belongs to another cluster"; !errors.Is(err, ErrHungUp) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v", other, err)
		}
	}
	second := start(t, "node2", in("blue"), withKey("0123456789abcdef"))
	third := start(t, "node3", in("blue"), withKey("0123456789abcdef"))
	join(t, third, second)
	converge(t, second, third)
	if largest := second.MaxGossip(); largest != 1400-2-29-(2+4)-3-2 {
		t.Errorf("the largest gossip is %d bytes", largest)
	}
	bag := attach(t, third, nil)
	if err := second.Gossip(make([]byte, second.MaxGossip()), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the largest message arrives", func() bool { return len(bag.got()) > 0 })
}
