package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lookupNothing is a name server that knows no name.
func lookupNothing(_ context.Context, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// muteListener accepts and never answers.
func muteListener(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

var loopbacks atomic.Uint32

// ownHost is a loopback address that no other test uses, where the system has
// more than one, so that a port on it stays free.
func ownHost() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	pid, count := os.Getpid(), loopbacks.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8%64, pid%256, 1+count%250)
}

// deadAddr is one where nobody listens, and a node can later.
func deadAddr(t testing.TB) string {
	l, err := net.Listen("tcp", ownHost()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestJoinErrors(t *testing.T) {
	t.Parallel()
	n := start(t, "node1", func(c *Config) { c.hooks.lookup = lookupNothing })
	wild := start(t, "node1", withBind("0.0.0.0:0"), func(c *Config) { c.Advertise = "127.0.0.1" })
	_, wildPort, _ := net.SplitHostPort(wild.Addr())
	greeter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = greeter.Close() })
	go func() {
		for {
			conn, err := greeter.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail.example.org ESMTP\r\n")
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	for _, c := range []struct {
		name  string
		node  *Node
		seeds []string
		is    error
		text  string
	}{
		{"refused", n, []string{deadAddr(t)}, syscall.ECONNREFUSED, "connection refused"},
		{"unknown host", n, []string{"nowhere.example"}, nil, "no such host"},
		{"itself", n, []string{n.Addr()}, ErrSelf, "is this node itself"},
		{"itself by wildcard", wild, []string{"127.0.0.77:" + wildPort}, ErrSelf, "is this node itself"},
		{"from loopback outwards", n, []string{"192.0.2.1:7946"}, ErrUnreachableFrom, "advertises " + n.Addr()},
		{"no gossip", n, []string{greeter.Addr().String()}, nil, "not as a node"},
		{"none", n, nil, nil, "no seeds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			joined, err := c.node.Join(testContext(t), c.seeds...)
			var je *JoinError
			if joined != 0 || !errors.As(err, &je) || len(je.Seeds) != len(c.seeds) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%d, %v", joined, err)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error is not %v: %v", c.is, err)
			}
		})
	}
	var fault *AddressError
	if _, err := n.Join(testContext(t), deadAddr(t), "a:b:c"); !errors.As(err, &fault) || fault.Addr != "a:b:c" {
		t.Errorf("malformed seed: %v", err)
	}
}

// TestJoinSomeSeeds: one of several answers, and the mute ones cost little.
func TestJoinSomeSeeds(t *testing.T) {
	t.Parallel()
	a, b := start(t, "node1"), start(t, "node2")
	seeds := []string{muteListener(t), muteListener(t), deadAddr(t), b.Addr(), muteListener(t), a.Addr()}
	began := time.Now()
	joined, err := b.Join(testContext(t), seeds...)
	if err != nil || joined != 1 {
		t.Errorf("%d, %v", joined, err)
	}
	if took := time.Since(began); took > b.settings.profile.dial {
		t.Errorf("Join waited %v for seeds that do not answer", took)
	}
	converge(t, a, b)
}

func TestJoinHonoursContext(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	mute := muteListener(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if _, err := n.Join(ctx, mute); !errors.Is(err, cause) || !strings.Contains(err.Error(), mute) {
		t.Errorf("cancelled: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = n.Close() })
	if _, err := n.Join(context.Background(), mute); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestJoinByName: a DNS name has several addresses, only one of which answers.
func TestJoinByName(t *testing.T) {
	t.Parallel()
	a := start(t, "node1")
	b := start(t, "node2", func(c *Config) {
		c.hooks.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host != "cluster.example" {
				return lookupNothing(ctx, host)
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil
		}
	})
	_, port, _ := net.SplitHostPort(a.Addr())
	if joined, err := b.Join(testContext(t), "cluster.example:"+port); err != nil || joined != 1 {
		t.Fatalf("%d, %v", joined, err)
	}
	converge(t, a, b)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 24, 32} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			key := strings.Repeat("k", size)
			a, b := start(t, "node1", withKey(key)), start(t, "node2", withKey(key))
			join(t, b, a)
			converge(t, a, b)
			if err := b.Leave(testContext(t)); err != nil || status(a, "node2") != Left {
				t.Errorf("%v, %s", err, status(a, "node2"))
			}
		})
	}
	const key1, key2 = "0123456789abcdef", "fedcba9876543210"
	for _, c := range []struct {
		name       string
		seed, node option
	}{
		{"other key", withKey(key1), withKey(key2)},
		{"no key", withKey(key1), withKey("")},
		{"a key too many", withKey(""), withKey(key2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seed, n := start(t, "node1", c.seed), start(t, "node2", c.node)
			_, err := n.Join(testContext(t), seed.Addr())
			want := "seed " + seed.Addr() + " answered but does not share this node's gossip key"
			if !errors.Is(err, ErrKeyMismatch) || !strings.Contains(err.Error(), want) {
				t.Errorf("Join says %v", err)
			}
			if len(seed.Members()) != 1 || len(n.Members()) != 1 {
				t.Error("they know each other all the same")
			}
		})
	}
}

func TestCutAndHeal(t *testing.T) {
	t.Parallel()
	w := newWall()
	a, b := w.start(t, "a", 0), w.start(t, "b", 0)
	c, d := w.start(t, "c", 1), w.start(t, "d", 1)
	for _, n := range []*Node{b, c, d} {
		join(t, n, a)
	}
	converge(t, a, b, c, d)
	w.set(true)
	for _, n := range []*Node{a, b} {
		waitStatus(t, n, "c", Failed)
		waitStatus(t, n, "d", Failed)
	}
	for _, n := range []*Node{c, d} {
		waitStatus(t, n, "a", Failed)
		waitStatus(t, n, "b", Failed)
	}
	w.set(false)
	converge(t, a, b, c, d)
	var attempts, successes uint64
	for _, n := range []*Node{a, b, c, d} {
		s := n.Stats()
		attempts, successes = attempts+s.RejoinAttempts, successes+s.RejoinSuccesses
	}
	if successes == 0 || attempts < successes {
		t.Errorf("%d attempts, %d successes", attempts, successes)
	}
}

// TestSeedComesLater: a node whose seed is not up keeps trying, and finds a
// seed again that was replaced by another node while it was alone.
func TestSeedComesLater(t *testing.T) {
	t.Parallel()
	addr := deadAddr(t)
	log := &recorder{}
	n := start(t, "node1", func(c *Config) { c.RetryJoin = []string{addr}; c.Logger = log.logger(0) })
	eventually(t, "it tried", func() bool { return n.Stats().RejoinAttempts > 1 })
	if !log.has("cannot reach a node", addr, "connection refused") {
		t.Error("the first failure was not logged")
	}
	seed := start(t, "seed", withBind(addr))
	converge(t, n, seed)
	eventually(t, "the success is logged", func() bool { return log.has("rejoined", addr) })
	if err := seed.Leave(testContext(t)); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, n, "seed", Left)
	other := start(t, "other", withBind(addr))
	converge(t, n, other)
}

// TestRetryByName: the addresses of a name change while it is tried.
func TestRetryByName(t *testing.T) {
	t.Parallel()
	seed := start(t, "seed")
	_, port, _ := net.SplitHostPort(seed.Addr())
	var asked atomic.Int32
	n := start(t, "node1", func(c *Config) {
		c.RetryJoin = []string{"seed.example:" + port}
		c.hooks.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			switch asked.Add(1) {
			case 1:
				return lookupNothing(ctx, host)
			case 2:
				return []netip.Addr{netip.MustParseAddr("127.0.0.9")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	})
	converge(t, n, seed)
}

// TestRejoinIsQuiet: with everybody there, nobody is dialled.
func TestRejoinIsQuiet(t *testing.T) {
	t.Parallel()
	a := start(t, "node1")
	b := start(t, "node2", func(c *Config) { c.RetryJoin = []string{a.Addr()} })
	converge(t, a, b)
	eventually(t, "the seed answered", func() bool { return !b.seeds.waiting() })
	before := b.Stats().RejoinAttempts
	round := rejoinRound{node: b, reported: make(map[netip.AddrPort]bool), silent: make(map[string]bool)}
	for range 20 {
		if round.run(b.ctx) {
			t.Fatal("something is missing")
		}
	}
	if after := b.Stats().RejoinAttempts; after != before {
		t.Errorf("%d attempts", after-before)
	}
}
