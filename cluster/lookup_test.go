package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	a, b := nodes[0], nodes[1]
	if err := b.Advertise("mail", ":1111"); err != nil {
		t.Fatal(err)
	}
	if err := b.Advertise("other", "tls+tcp://10.9.8.7:443"); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitForNode(testContext(t), "node2", "mail", "other"); err != nil {
		t.Fatal(err)
	}
	for service, want := range map[string]string{"mail": "tcp://127.0.0.1:1111", "other": "tls+tcp://10.9.8.7:443"} {
		for _, n := range nodes {
			if e, err := n.Lookup("node2", service); err != nil || e != (Endpoint{URL: want, Instance: b.Instance()}) {
				t.Errorf("%s at %s: %v, %v", service, n.Name(), e, err)
			}
		}
	}
	for _, c := range []struct {
		node, service string
		is            error
		text          string
	}{
		{"node3", "mail", ErrUnknownNode, "cluster: lookup node3: unknown node (did you mean node1 or node2?)"},
		{"Node2", "mail", ErrUnknownNode, "cluster: lookup Node2: unknown node (did you mean node2 or node1?)"},
		{"noed2", "mail", ErrUnknownNode, "cluster: lookup noed2: unknown node (did you mean node2 or node1?)"},
		{"elsewhere", "mail", ErrUnknownNode, "cluster: lookup elsewhere: unknown node"},
		{"", "mail", ErrUnknownNode, "cluster: lookup : unknown node"},
		{"node2", "post", ErrNoService, "cluster: lookup node2: no such service: post (it offers mail, other)"},
		{"node1", "post", ErrNoService, "cluster: lookup node1: no such service: post (it offers none)"},
	} {
		_, err := a.Lookup(c.node, c.service)
		var lookup *LookupError
		if !errors.Is(err, c.is) || !errors.As(err, &lookup) || err.Error() != c.text {
			t.Errorf("%s/%s: %v, want %s", c.node, c.service, err, c.text)
		}
	}
	_ = a.Close()
	if _, err := a.Lookup("node2", "mail"); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if len(a.Members()) != 2 {
		t.Errorf("after Close the members are %v", a.Members())
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"node1", "node1", 0}, {"node1", "node2", 1}, {"noed1", "node1", 1},
		{"nod1", "node1", 1}, {"nodee1", "node1", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1},
	} {
		if got := editDistance(c.a, c.b, 9); got != c.want || editDistance(c.b, c.a, 9) != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
	names := []string{"db-1", "db-2", "db-3", "web-1", "db-11"}
	for name, want := range map[string][]string{"db1": {"db-1"}, "db-12": {"db-1", "db-11", "db-2"}, "x": nil, "cache-7": nil} {
		if got := similar(name, names); !slices.Equal(got, want) {
			t.Errorf("similar to %s: %v, want %v", name, got, want)
		}
	}
}

func TestWaitForNode(t *testing.T) {
	t.Parallel()
	a := start(t, "node1")
	if err := a.WaitForNode(testContext(t), "node1"); err != nil {
		t.Errorf("waiting for oneself: %v", err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, cause)
	defer cancel()
	err := a.WaitForNode(ctx, "node2", "mail")
	if !errors.Is(err, cause) || !errors.Is(err, ErrUnknownNode) || err.Error() != "cluster: wait for node2: enough: unknown node (did you mean node1?)" {
		t.Errorf("time is up: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- a.WaitForNode(testContext(t), "node2", "mail") }()
	b := start(t, "node2")
	join(t, b, a)
	select {
	case err := <-waited:
		t.Fatalf("returned before the service was there: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := b.Advertise("mail", ":1111"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	go func() { waited <- a.WaitForNode(context.Background(), "node3") }()
	_ = a.Close()
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestTagsTravel(t *testing.T) {
	t.Parallel()
	a := start(t, "node1", func(c *Config) { c.Tags = map[string]string{"zone": "a"} })
	b := start(t, "node2")
	join(t, b, a)
	if m, _ := b.Member("node1"); m.Tags["zone"] != "a" {
		t.Errorf("tags of the start are %v", m.Tags)
	}
	events := watch(t, b)
	tags := map[string]string{"zone": "b", "role": "db"}
	if err := a.SetTags(tags); err != nil {
		t.Fatal(err)
	}
	tags["zone"] = "changed after the call"
	eventually(t, "the tags arrive", func() bool {
		m, _ := b.Member("node1")
		return m.Tags["zone"] == "b" && m.Tags["role"] == "db" && len(m.Tags) == 2
	})
	eventually(t, "the event", func() bool { return events.of("node1") == "updated" })
	if err := a.SetTags(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tags go", func() bool { m, _ := b.Member("node1"); return len(m.Tags) == 0 })
}

// TestAdvertiseThenBeJoined: who joins through a node sees what it offered
// before, at once.
func TestAdvertiseThenBeJoined(t *testing.T) {
	t.Parallel()
	a := start(t, "node1")
	for i := range 5 {
		for _, service := range []string{"mail", "post"} {
			if err := a.Advertise(service, fmt.Sprintf(":%d", 1000+i)); err != nil {
				t.Fatal(err)
			}
		}
		b := start(t, fmt.Sprintf("new%d", i))
		join(t, b, a)
		want := fmt.Sprintf("tcp://127.0.0.1:%d", 1000+i)
		for _, service := range []string{"mail", "post"} {
			if e, err := b.Lookup("node1", service); err != nil || e.URL != want {
				t.Errorf("%d: %s is at %v, %v", i, service, e, err)
			}
		}
		_ = b.Close()
	}
}

func TestPublicationsAreSpaced(t *testing.T) {
	n := &Node{settings: &settings{profile: profile{publishGap: time.Second}}}
	now := time.Now()
	count := func() (k int) {
		for n.mayPublish(now) {
			k++
		}
		return k
	}
	if k := count(); k != publishBurst {
		t.Errorf("%d publications at once, want %d", k, publishBurst)
	}
	now = now.Add(3 * time.Second)
	if k := count(); k != 3 {
		t.Errorf("%d publications after three seconds, want 3", k)
	}
	now = now.Add(time.Hour)
	if k := count(); k != publishBurst {
		t.Errorf("%d publications after an hour, want %d", k, publishBurst)
	}
}

// TestAdvertiseThenJoin: nobody sees a node without its services, although
// publishing takes a while.
func TestAdvertiseThenJoin(t *testing.T) {
	t.Parallel()
	a := start(t, "node1")
	for i := range 5 {
		name := fmt.Sprintf("new%d", i)
		b := start(t, name)
		if err := b.Advertise("mail", ":1111"); err != nil {
			t.Fatal(err)
		}
		events := a.Events(testContext(t))
		join(t, b, a)
		for e := range events {
			if e.Member.Name != name {
				continue
			}
			if len(e.Member.Services) != 1 {
				t.Fatalf("first seen %s with services %v", e.Type, e.Member.Services)
			}
			break
		}
	}
}

func TestMetadataLimit(t *testing.T) {
	t.Parallel()
	n := start(t, "node1", func(c *Config) { c.Tags = map[string]string{"keep": "me"} })
	var fits int
	var limit *codec.LimitError
	for ; ; fits++ {
		err := n.Advertise(fmt.Sprintf("service-number-%d", fits), fmt.Sprintf("tcp://10.0.0.1:%d", 1000+fits))
		if err == nil {
			continue
		}
		if !errors.As(err, &limit) || limit.Limit != codec.MaxMetadata || limit.Size <= limit.Limit {
			t.Fatalf("error is %v", err)
		}
		break
	}
	if m, _ := n.Member("node1"); len(m.Services) != fits || fits < 5 {
		t.Errorf("%d services fitted, %d are there", fits, len(m.Services))
	}
	if err := n.SetTags(map[string]string{"keep": strings.Repeat("x", 128)}); !errors.As(err, &limit) {
		t.Errorf("error is %v", err)
	}
	if m, _ := n.Member("node1"); m.Tags["keep"] != "me" {
		t.Errorf("the old tags are gone: %v", m.Tags)
	}
	if s := n.Stats(); s.MetadataBytes > codec.MaxMetadata || s.MetadataBytes < 400 {
		t.Errorf("%d bytes of metadata", s.MetadataBytes)
	}
	// The goodbye must fit even so.
	b := start(t, "node2")
	join(t, b, n)
	converge(t, b, n)
	if err := n.Leave(testContext(t)); err != nil || status(b, "node1") != Left {
		t.Errorf("leave with full metadata: %v, %s", err, status(b, "node1"))
	}
	var name *codec.NameError
	for _, err := range []error{
		b.Advertise("no spaces", ":1"), b.Advertise("mail", ":0"), b.Advertise("mail", "host:1"),
		b.Advertise("mail", "tcp://host:1"), b.SetTags(map[string]string{"": "x"}),
	} {
		if !errors.As(err, &name) {
			t.Errorf("error is %v", err)
		}
	}
	for _, err := range []error{n.Advertise("mail", ":1"), n.Withdraw("mail"), n.SetTags(nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	n := start(b, "node1")
	if err := n.Advertise("mail", ":1111"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := n.Lookup("node1", "mail"); err != nil {
				b.Error(err)
			}
		}
	})
}
