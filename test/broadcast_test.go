package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/test/harness"
)

// bodies are the bodies of what came by broadcast to n on a topic, sorted.
func bodies(n *harness.Node, topic string) (s []string) {
	for _, m := range n.Casts() {
		if m.Topic == topic {
			s = append(s, string(m.Body))
		}
	}
	slices.Sort(s)
	return s
}

// A reliable broadcast is with everyone when the call returns, and the receipt
// says with whom: those that acknowledge, and those that cannot.
func TestReliableBroadcast(t *testing.T) {
	nodes := harness.Start(t, 4, harness.Options{NoMailbox: func(node string) bool { return node == "node4" }})
	receipt, err := nodes[0].Cast.Reliable(within(t), "config", []byte("v2"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"node2", "node3"}; !slices.Equal(receipt.Handled, want) {
		t.Errorf("handled by %v, want %v", receipt.Handled, want)
	}
	if want := []string{"node4"}; !slices.Equal(receipt.Written, want) {
		t.Errorf("written to %v, want %v", receipt.Written, want)
	}
	for _, n := range nodes[1:3] { // now, without waiting
		if got := bodies(n, "config"); !slices.Equal(got, []string{"v2"}) {
			t.Errorf("%s has %q", n.Name, got)
		}
	}
	harness.Eventually(t, 30*time.Second, func() bool { return len(nodes[3].Casts()) == 1 }, "node4 gets what was written to it")
	for _, n := range nodes[1:] {
		if m := n.Casts()[0]; m.From != "node1" || !m.Reliable || m.ID != receipt.ID {
			t.Errorf("%s got %+v", n.Name, m)
		}
	}
	if got := nodes[0].Casts(); len(got) != 0 {
		t.Errorf("the sender got %+v", got)
	}
	// A node without a mailbox can send all the same.
	receipt, err = nodes[3].Cast.Reliable(within(t), "config", []byte("v3"))
	if want := []string{"node1", "node2", "node3"}; err != nil || !slices.Equal(receipt.Handled, want) {
		t.Errorf("handled by %v, want %v, error %v", receipt.Handled, want, err)
	}
}

// The largest message passes with the defaults of every package, encrypted gossip
// and members without a mailbox included, and the next larger one is refused here.
func TestReliableBroadcastLargest(t *testing.T) {
	nodes := harness.Start(t, 3, harness.Options{
		Key:       bytes.Repeat([]byte{7}, 32),
		NoMailbox: func(node string) bool { return node == "node3" },
	})
	body := make([]byte, broadcast.DefaultMaxMessage+1)
	for i := range body {
		body[i] = byte(i * i >> 7)
	}
	_, err := nodes[0].Cast.Reliable(within(t), "blob", body)
	var limit *codec.LimitError
	if !errors.As(err, &limit) || limit.Limit != broadcast.DefaultMaxMessage || limit.Size != len(body) {
		t.Errorf("one byte over: %v", err)
	}
	body = body[:broadcast.DefaultMaxMessage]
	receipt, err := nodes[0].Cast.Reliable(within(t), "blob", body)
	if err != nil || len(receipt.Handled) != 1 || len(receipt.Written) != 1 {
		t.Fatalf("receipt %+v, error %v", receipt, err)
	}
	for _, n := range nodes[1:] {
		harness.Eventually(t, 30*time.Second, func() bool { return len(n.Casts()) == 1 }, "%s gets it", n.Name)
		if !bytes.Equal(n.Casts()[0].Body, body) {
			t.Errorf("%s got another body", n.Name)
		}
	}
}

// A node that dies with the message in its hands is named, with the reason, and
// long before the caller's time is over.
func TestReliableBroadcastNamesTheDead(t *testing.T) {
	reached := make(chan struct{})
	nodes := harness.Start(t, 3, harness.Options{Cast: func(node string) broadcast.Handler {
		return broadcast.HandlerFunc(func(ctx context.Context, m broadcast.Message) error {
			if node != "node3" {
				return nil
			}
			close(reached)
			<-ctx.Done()
			return ctx.Err()
		})
	}})
	type result struct {
		receipt broadcast.Receipt
		err     error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	go func() {
		receipt, err := nodes[0].Cast.Reliable(ctx, "t", []byte("to all"))
		done <- result{receipt, err}
	}()
	<-reached
	nodes[2].Kill()
	r := <-done
	var partial *broadcast.PartialError
	if !errors.As(r.err, &partial) || !slices.Equal(partial.Names(), []string{"node3"}) {
		t.Errorf("error %v", r.err)
	}
	if !slices.Equal(r.receipt.Handled, []string{"node2"}) || r.receipt.Failed["node3"] == nil || ctx.Err() != nil {
		t.Errorf("receipt %+v", r.receipt)
	}
	t.Log(r.err)
}

// Best effort reaches everyone else, once, and who comes later is not given what
// was said before, but what is said from then on.
func TestBestEffortBroadcast(t *testing.T) {
	nodes := harness.Start(t, 3, harness.Options{})
	if err := nodes[0].Cast.BestEffort("news", []byte("first")); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		harness.Eventually(t, time.Minute, func() bool { return len(n.Casts()) > 0 }, "%s hears of it", n.Name)
	}
	nodes = append(nodes, nodes[0].Add("node4", harness.Options{}))
	harness.WaitConverged(t, nodes...)
	if err := nodes[1].Cast.BestEffort("news", []byte("second")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*harness.Node{nodes[0], nodes[2], nodes[3]} {
		harness.Eventually(t, time.Minute, func() bool { return slices.Contains(bodies(n, "news"), "second") }, "%s hears of it", n.Name)
	}
	want := [][]string{{"second"}, {"first"}, {"first", "second"}, {"second"}}
	for i, n := range nodes {
		if got := bodies(n, "news"); !slices.Equal(got, want[i]) {
			t.Errorf("%s got %q, want %q", n.Name, got, want[i])
		}
		for _, m := range n.Casts() {
			if from := map[string]string{"first": "node1", "second": "node2"}[string(m.Body)]; m.From != from || m.Reliable {
				t.Errorf("%s got %+v", n.Name, m)
			}
		}
	}
}

// Two clusters that become one, as after a partition: what was said on either side
// while they were apart reaches the other by push/pull, once, and from the node
// that learns it there all of its side.
func TestBestEffortAfterAPartition(t *testing.T) {
	name := rand.Text()[:8] // one cluster, whose halves do not know each other yet
	same := func(c *cluster.Config) { c.Cluster = name }
	east := harness.Start(t, 3, harness.Options{Prefix: "east", Cluster: same})
	west := harness.Start(t, 3, harness.Options{Prefix: "west", Cluster: same})
	for _, side := range [][]*harness.Node{east, west} {
		if err := side[0].Cast.BestEffort("news", []byte(side[0].Name)); err != nil {
			t.Fatal(err)
		}
		for _, n := range side[1:] {
			harness.Eventually(t, time.Minute, func() bool { return len(n.Casts()) == 1 }, "%s hears of it", n.Name)
		}
	}
	if _, err := east[2].Cluster.Join(within(t), west[2].Cluster.Addr()); err != nil {
		t.Fatal(err)
	}
	nodes := append(east, west...)
	harness.WaitConverged(t, nodes...)
	for _, n := range nodes {
		var want []string
		for _, from := range []string{"east1", "west1"} {
			if from != n.Name {
				want = append(want, from)
			}
		}
		harness.Eventually(t, time.Minute, func() bool { return len(n.Casts()) >= len(want) }, "%s hears of %q", n.Name, want)
		if got := bodies(n, "news"); !slices.Equal(got, want) {
			t.Errorf("%s got %q, want %q", n.Name, got, want)
		}
	}
	if east[2].Cast.Stats().CaughtUp+west[2].Cast.Stats().CaughtUp == 0 {
		t.Error("the two that met learned nothing from each other")
	}
}

// The gossip budget is known: beyond it the caller is told, nothing is queued and
// what was accepted arrives.
func TestBestEffortBudget(t *testing.T) {
	nodes := harness.Start(t, 2, harness.Options{})
	body := bytes.Repeat([]byte("x"), 1000)
	accepted := 0
	var err error
	for accepted < 100_000 {
		if err = nodes[0].Cast.BestEffort("flood", body); err != nil {
			break
		}
		accepted++
	}
	if !errors.Is(err, cluster.ErrGossipBusy) {
		t.Fatalf("after %d messages: %v", accepted, err)
	}
	t.Logf("%d accepted, then: %v", accepted, err)
	harness.Eventually(t, 2*time.Minute, func() bool { return len(bodies(nodes[1], "flood")) == accepted }, "all %d arrive", accepted)
	harness.Eventually(t, 2*time.Minute, func() bool {
		return nodes[0].Cast.BestEffort("flood", []byte("again")) == nil
	}, "there is budget again")
}

// In a quiet cluster of forty with the profile of a local network, everybody has
// every hint: normally after a second, and after the next push/pull in the worst
// case.
func TestBestEffortFortyNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("forty nodes take a while to find each other")
	}
	nodes := harness.Start(t, 40, harness.Options{Profile: cluster.LAN})
	const hints = 5
	start := time.Now()
	for i := range hints {
		if err := nodes[i*7].Cast.BestEffort("hint", fmt.Appendf(nil, "hint %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range nodes {
		want := hints
		if i%7 == 0 && i/7 < hints {
			want--
		}
		harness.Eventually(t, 3*time.Minute, func() bool { return len(bodies(n, "hint")) >= want }, "%s hears all %d hints", n.Name, want)
	}
	took := time.Since(start)
	var late uint64
	for i, n := range nodes {
		got := bodies(n, "hint")
		if len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%s got duplicates: %q", n.Name, got)
		}
		if i%7 == 0 && i/7 < hints && slices.Contains(got, fmt.Sprintf("hint %d", i/7)) {
			t.Errorf("%s got its own hint", n.Name)
		}
		late += n.Cast.Stats().CaughtUp
	}
	t.Logf("the last of %d nodes had all %d hints after %v; %d of %d deliveries came by push/pull",
		len(nodes), hints, took.Round(time.Millisecond), late, hints*(len(nodes)-1))
}
