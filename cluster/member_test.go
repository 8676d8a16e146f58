package cluster

import (
	"context"
	"errors"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

func TestJoinAndFail(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2", "node3")
	events := watch(t, nodes[0])
	if err := nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, nodes[0], "node3", Failed)
	waitStatus(t, nodes[1], "node3", Failed)
	eventually(t, "the event", func() bool { return events.of("node3") == "failed" })
	_, err := nodes[0].Lookup("node3", "x")
	var failed interface{ NodeFailed() bool }
	if !errors.Is(err, ErrFailed) || !errors.As(err, &failed) || !failed.NodeFailed() || !strings.Contains(err.Error(), " ago, at ") {
		t.Errorf("lookup of a failed node: %v", err)
	}
	if names := slices.Sorted(maps.Keys(nodes[0].Recipients("x"))); !slices.Equal(names, []string{"node2"}) {
		t.Errorf("recipients are %v", names)
	}
	if s := nodes[0].Stats(); s.Alive != 2 || s.Failed != 1 || s.Left != 0 {
		t.Errorf("stats say %+v", s)
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2", "node3")
	events, own := watch(t, nodes[0]), watch(t, nodes[2])
	if err := nodes[2].Leave(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// Not eventually: that the others know is what Leave waits for.
	for _, n := range nodes[:2] {
		if status(n, "node3") != Left {
			t.Errorf("after Leave, %s sees node3 %s", n.Name(), status(n, "node3"))
		}
	}
	select {
	case <-nodes[2].Done():
	default:
		t.Error("Leave returned before Done was closed")
	}
	if err := nodes[2].Err(); err != nil {
		t.Errorf("Err after Leave is %v", err)
	}
	_, err := nodes[0].Lookup("node3", "x")
	if !errors.Is(err, ErrLeft) {
		t.Errorf("lookup of a node that left: %v", err)
	}
	// memberlist takes its time to bury it; that must not turn Left into Failed.
	eventually(t, "memberlist drops node3", func() bool { return nodes[0].ml.NumMembers() == 2 })
	if got := events.of("node3"); got != "left" {
		t.Errorf("events of node3 are %q", got)
	}
	eventually(t, "its own event", func() bool { return own.of("node3") == "left" })
}

// TestGoodbyeComesLate holds that each of the three ways of a goodbye corrects
// a failure that was believed before.
func TestGoodbyeComesLate(t *testing.T) {
	t.Parallel()
	md := codec.Metadata{Name: "node2", Instance: 7, Epoch: 1}
	leaving := md
	leaving.Leaving = true
	for name, say := range map[string]func(n *Node){
		"metadata": func(n *Node) { _ = (&delegate{n}).NotifyAlive(claimOf(t, &leaving)) },
		"packet":   func(n *Node) { n.receive(goodbyeFrame("node2", 7)) },
		"state": func(n *Node) {
			s := peerState{from: identity{"node3", 9}, departed: []identity{{"node2", 7}}}
			n.mergeState(s.append(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "node1")
			d := &delegate{n}
			events := watch(t, n)
			peer := claimOf(t, &md)
			if err := d.NotifyAlive(peer); err != nil {
				t.Fatal(err)
			}
			d.NotifyJoin(peer)
			d.NotifyLeave(peer)
			if status(n, "node2") != Failed {
				t.Fatalf("status is %s", status(n, "node2"))
			}
			say(n)
			if status(n, "node2") != Left {
				t.Errorf("after the goodbye the status is %s", status(n, "node2"))
			}
			// It tells others with the next exchange of states.
			state, err := parseState(n.localState())
			if err != nil || !slices.Contains(state.departed, identity{"node2", 7}) {
				t.Errorf("its state says %+v, %v", state, err)
			}
			// An old alive message must not bring it back.
			if err := d.NotifyAlive(peer); err == nil {
				t.Error("an instance that said goodbye was taken for alive")
			}
			d.NotifyJoin(peer)
			d.NotifyLeave(peer)
			eventually(t, "the events", func() bool { return events.of("node2") == "joined failed left" })
		})
	}
}

// claimOf is md as memberlist hands it over.
func claimOf(t testing.TB, md *codec.Metadata) *memberlist.Node {
	meta, err := md.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &memberlist.Node{
		Name: memberKey(md.Name, md.Instance), Addr: net.IPv4(127, 0, 0, 1).To4(), Port: 1, Meta: meta,
		PMin: 1, PMax: memberlist.ProtocolVersionMax, PCur: memberlistProtocol,
	}
}

func TestRestartElsewhere(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2", "node3")
	old := nodes[1]
	if err := old.Advertise("mail", ":1111"); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if err := nodes[0].WaitForNode(ctx, "node2", "mail"); err != nil {
		t.Fatal(err)
	}
	events := watch(t, nodes[0])
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, "node2")
	if err := again.Advertise("mail", ":2222"); err != nil {
		t.Fatal(err)
	}
	join(t, again, nodes[2])
	eventually(t, "node1 finds node2 at its new place", func() bool {
		e, err := nodes[0].Lookup("node2", "mail")
		return err == nil && e.URL == "tcp://127.0.0.1:2222" && e.Instance == again.Instance()
	})
	if nodes[0].instanceStatus(old.key) != Alive {
		t.Log("the old instance was found dead sooner than expected; the case is weaker")
	}
	eventually(t, "the old instance is buried", func() bool { return nodes[0].instanceStatus(old.key) == "" })
	if got := events.of("node2"); got != "joined" {
		t.Errorf("events of node2 are %q, want joined only", got)
	}
	converge(t, nodes[0], again, nodes[2])
}

// instanceStatus is "" for an instance that is forgotten.
func (n *Node) instanceStatus(key string) Status {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if r := n.table.instances[key]; r != nil {
		return r.member.Status
	}
	return ""
}

func TestObserver(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	events := watch(t, nodes[0])
	for _, end := range []struct {
		name string
		stop func(*Node) error
	}{
		{"client-leaves", func(n *Node) error { return n.Leave(testContext(t)) }},
		{"client-dies", (*Node).Close},
	} {
		client := start(t, end.name, asObserver)
		if err := client.Advertise("mail", ":1111"); err != nil {
			t.Fatal(err)
		}
		join(t, client, nodes[0])
		for _, n := range nodes {
			eventually(t, "the observer is counted", func() bool { return n.Stats().Observers == 1 })
			if _, known := n.Member(end.name); known || len(n.Members()) != 2 || len(n.Recipients("mail")) != 1 {
				t.Errorf("%s lists the observer", n.Name())
			}
			if _, err := n.Lookup(end.name, "mail"); !errors.Is(err, ErrUnknownNode) {
				t.Errorf("lookup of an observer: %v", err)
			}
			for set := range n.Providers(testContext(t), "mail") {
				if len(set) != 0 {
					t.Errorf("providers are %v", set)
				}
				break
			}
		}
		if len(client.Members()) != 2 {
			t.Errorf("the observer sees %v", client.Members())
		}
		if e, err := client.Lookup(end.name, "mail"); err != nil || e.Instance != client.Instance() {
			t.Errorf("the observer does not find itself: %v, %v", e, err)
		}
		if err := end.stop(client); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			eventually(t, "the observer is gone", func() bool { return n.Stats().Observers == 0 })
			if s := n.Stats(); s.Left != 0 || s.Failed != 0 {
				t.Errorf("%s lists an observer that is gone: %+v", n.Name(), s)
			}
		}
		if got := events.of(end.name); got != "" {
			t.Errorf("events of an observer: %q", got)
		}
	}
}

func TestTwoClustersInOneProcess(t *testing.T) {
	t.Parallel()
	a, b := startCluster(t, "node1", "node2"), startCluster(t, "node1", "node2")
	if a[0].Instance() == b[0].Instance() || len(a[0].Members()) != 2 || len(b[0].Members()) != 2 {
		t.Error("the clusters mixed")
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2", "node3")
	ctx, cancel := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	for _, n := range nodes {
		for _, use := range []func(){
			func() {
				for _, m := range n.Members() {
					m.Tags["x"], m.Services["y"] = "written to", Endpoint{} // copies are the caller's
				}
			},
			func() { _, _ = n.Lookup("node2", "mail") },
			func() { _ = n.Stats() },
			func() { _ = n.Recipients("mail") },
			func() { _ = n.Advertise("mail", ":1234"); _ = n.Withdraw("mail") },
			func() { _ = n.SetTags(map[string]string{"t": time.Now().String()[:19]}) },
			func() { _ = n.Gossip([]byte("hello"), true) },
			func() { _ = n.SendReliable(ctx, "node1", []byte("hello")); time.Sleep(time.Millisecond) },
			func() {
				ctx, stop := context.WithTimeout(ctx, time.Millisecond)
				for range n.Events(ctx) {
				}
				for range n.Providers(ctx, "mail") {
				}
				stop()
			},
		} {
			wg.Go(func() {
				for ctx.Err() == nil {
					use()
					runtime.Gosched()
				}
			})
		}
	}
	time.AfterFunc(500*time.Millisecond, cancel)
	wg.Wait()
	for _, m := range nodes[0].Members() {
		if m.Tags["x"] != "" {
			t.Error("a copy was not a copy")
		}
	}
	converge(t, nodes...)
}
