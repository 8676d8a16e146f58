package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/parley-mesh/parley/codec"
)

// mailbag is a consumer of gossip.
type mailbag struct {
	mu       sync.Mutex
	payloads []string
	states   []string
}

func (b *mailbag) receive(p []byte) {
	b.mu.Lock()
	b.payloads = append(b.payloads, string(p))
	b.mu.Unlock()
}

func (b *mailbag) merge(s []byte, fresh bool) {
	b.mu.Lock()
	b.states = append(b.states, fmt.Sprintf("%s %v", s, fresh))
	b.mu.Unlock()
}

func (b *mailbag) got() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.payloads)
}

func attach(t testing.TB, n *Node, state func() []byte) *mailbag {
	t.Helper()
	b := &mailbag{}
	if _, err := n.AttachGossip(b.receive, state, b.merge); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGossip(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "0123456789abcdef"} {
		t.Run("key "+key, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, "node1", withKey(key)), start(t, "node2", withKey(key))
			bag := attach(t, b, nil)
			if err := a.Gossip([]byte("nobody is there"), false); err != nil || a.Stats().GossipAlone != 1 {
				t.Errorf("alone: %v", err)
			}
			join(t, b, a)
			converge(t, a, b)
			largest := bytes.Repeat([]byte("x"), a.MaxGossip())
			for _, payload := range [][]byte{[]byte("small"), {0}, largest} {
				if err := a.Gossip(payload, false); err != nil {
					t.Fatal(err)
				}
				eventually(t, fmt.Sprintf("%d bytes arrive", len(payload)), func() bool {
					return slices.Contains(bag.got(), string(payload))
				})
			}
			var limit *codec.LimitError
			if err := a.Gossip(append(largest, 'x'), true); !errors.As(err, &limit) || limit.Size != limit.Limit+1 || limit.Limit != a.MaxGossip() {
				t.Errorf("too large: %v", err)
			}
			if err := a.Gossip(nil, false); !errors.Is(err, ErrEmpty) {
				t.Errorf("empty: %v", err)
			}
			_ = a.Close()
			if err := a.Gossip([]byte("x"), false); !errors.Is(err, ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		})
	}
}

// TestGossipLaw compares the budget with the capacities that were measured.
func TestGossipLaw(t *testing.T) {
	for _, c := range []struct {
		nodes, interval, udp, members int
		want                          float64
	}{
		{3, 200, 1400, 50, 11.25},
		{3, 200, 1400, 100, 7.5},
		{4, 20, 1400, 50, 150},
		{3, 50, 8192, 50, 300},
	} {
		cfg := &memberlist.Config{GossipNodes: c.nodes, GossipInterval: time.Duration(c.interval) * time.Millisecond, UDPBufferSize: c.udp, RetransmitMult: 4}
		var members atomic.Int64
		members.Store(int64(c.members))
		g := newGossip(cfg, &members)
		if got := g.rate(c.members) * float64(g.perPacket(200-frameHeader)); math.Abs(got-c.want) > 0.02*c.want {
			t.Errorf("%+v: %.2f a second", c, got)
		}
	}
}

func TestGossipBudget(t *testing.T) {
	var members atomic.Int64
	members.Store(50)
	g := newGossip(tuned(memberlist.DefaultLANConfig()), &members)
	now := time.Now()
	payload := make([]byte, 200-frameHeader)
	send := func(relay bool) *GossipBusyError {
		_, busy := g.enqueue(payload, relay, now)
		return busy
	}
	burst := 0
	for send(false) == nil {
		burst++
	}
	if burst < gossipBurstPackets || burst > 60 {
		t.Errorf("a burst is %d messages", burst)
	}
	busy := send(false)
	if busy == nil || !errors.Is(busy, ErrGossipBusy) || math.Abs(busy.Rate-11.25) > 0.1 || busy.Members != 50 || busy.RetryAfter <= 0 || busy.RetryAfter > time.Second {
		t.Fatalf("refused with %+v", busy)
	}
	now = now.Add(busy.RetryAfter + time.Millisecond)
	if err := send(false); err != nil {
		t.Errorf("refused after the time it gave: %v", err)
	}
	// In ten seconds there is room for ten seconds' worth.
	accepted := 0
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		if send(false) == nil {
			accepted++
		}
	}
	if accepted < 105 || accepted > 120 {
		t.Errorf("%d messages in ten seconds", accepted)
	}
	// Relays are taken, and leave nothing for own messages.
	for range 500 {
		now = now.Add(20 * time.Millisecond)
		if busy := send(true); busy != nil {
			t.Fatalf("a relay was refused: %v", busy)
		}
	}
	if send(false) == nil {
		t.Error("an own message was taken with the budget gone to relays")
	}
}

func TestGossipQueueIsBounded(t *testing.T) {
	var members atomic.Int64
	members.Store(50)
	g := newGossip(tuned(memberlist.DefaultLANConfig()), &members)
	now := time.Now()
	dropped := 0
	for range gossipQueue + 100 {
		if cut, _ := g.enqueue([]byte("relayed"), true, now); cut {
			dropped++
		}
	}
	if queued := g.queue.NumQueued(); queued != gossipQueue || dropped != 100 {
		t.Errorf("%d queued, %d dropped", queued, dropped)
	}
	now = now.Add(time.Hour)
	if _, busy := g.enqueue([]byte("own"), false, now); busy == nil || busy.RetryAfter <= 0 {
		t.Errorf("an own message in a full queue: %v", busy)
	}
}

// TestTinyGossip: memberlist corrupts a packet of more than 255 messages.
func TestTinyGossip(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	bag := attach(t, nodes[1], nil)
	const messages = 600
	for i := range messages {
		if err := nodes[0].Gossip([]byte{byte(i)}, true); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all arrive", func() bool { return len(bag.got()) >= messages })
	var q memberlist.TransmitLimitedQueue
	q.RetransmitMult, q.NumNodes = 4, func() int { return 2 }
	for range 1000 {
		q.QueueBroadcast(frame(newFrame(frameGossip, []byte{1})))
	}
	if n := len(q.GetBroadcasts(messageHeader, nodes[0].gossip.packet)); n > 240 {
		t.Errorf("%d messages in a packet", n)
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	a, b := nodes[0], nodes[1]
	if err := a.Gossip([]byte("too early"), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ignored and counted", func() bool { return b.Stats().InboundIgnored > 0 })
	entered, leave := make(chan struct{}, 8), make(chan struct{})
	detach, err := b.AttachGossip(func([]byte) { entered <- struct{}{}; <-leave }, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AttachGossip(func([]byte) {}, nil, nil); !errors.Is(err, ErrAttached) {
		t.Errorf("a second consumer: %v", err)
	}
	if err := a.SendReliable(testContext(t), "node2", []byte("x")); err != nil {
		t.Fatal(err)
	}
	<-entered
	detached := make(chan struct{})
	go func() { detach(); close(detached) }()
	select {
	case <-detached:
		t.Error("detach did not wait for the consumer")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	<-detached
	detach() // again
	bag := &mailbag{}
	detach, err = b.AttachGossip(bag.receive, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SendReliable(testContext(t), "node2", []byte("again")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next consumer gets it", func() bool { return slices.Contains(bag.got(), "again") })
	_ = b.Close()
	detach()
	if _, err := b.AttachGossip(func([]byte) {}, nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestInboxIsBounded(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	entered, leave := make(chan struct{}, inboxMessages+1), make(chan struct{})
	if _, err := n.AttachGossip(func([]byte) { entered <- struct{}{}; <-leave }, nil, nil); err != nil {
		t.Fatal(err)
	}
	message := newFrame(frameGossip, []byte("x"))
	n.receive(message)
	<-entered
	for range inboxMessages + 10 {
		n.receive(message)
	}
	if s := n.Stats(); s.InboundQueued != inboxMessages || s.InboundDropped != 10 {
		t.Errorf("%d queued, %d dropped", s.InboundQueued, s.InboundDropped)
	}
	close(leave)
	eventually(t, "the queue is empty", func() bool { return n.Stats().InboundQueued == 0 })

	in := newInbox()
	in.on.Store(true)
	for i, c := range []struct {
		size int
		want inboxResult
	}{{inboxBytes + 1, inboxTaken}, {1, inboxFull}} {
		if got := in.push(make([]byte, c.size)); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if _, ok := in.pop(); !ok || in.bytes != 0 {
		t.Errorf("%d bytes are counted", in.bytes)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	a, b := start(t, "node1"), start(t, "node2")
	atA := attach(t, a, func() []byte { return []byte("from a") })
	atB := attach(t, b, func() []byte { return []byte("from b") })
	join(t, b, a)
	states := func(bag *mailbag) []string {
		bag.mu.Lock()
		defer bag.mu.Unlock()
		return slices.Clone(bag.states)
	}
	eventually(t, "the first exchange", func() bool { return len(states(atA)) > 0 && len(states(atB)) > 0 })
	join(t, b, a)
	eventually(t, "the second exchange", func() bool { return len(states(atA)) > 1 && len(states(atB)) > 1 })
	if got := states(atA)[:2]; !slices.Equal(got, []string{"from b true", "from b false"}) {
		t.Errorf("a got %q", got)
	}
	if got := states(atB)[:2]; !slices.Equal(got, []string{"from a true", "from a false"}) {
		t.Errorf("b got %q", got)
	}
	big := start(t, "big")
	attach(t, big, func() []byte { return make([]byte, MaxGossipState+1) })
	join(t, big, a)
	if big.Stats().StateTooLarge == 0 || a.Stats().Malformed != 0 {
		t.Error("a state that is too large was not held back")
	}
}

func TestReceiveMalformed(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	bad := [][]byte{nil, {1}, {1, 1}, {2, 1, 0}, {1, 9, 0}, {1, frameGoodbye, 1}, newFrame(frameGoodbye, make([]byte, 8+maxName+1))}
	for _, b := range bad {
		n.receive(b)
	}
	if got := n.Stats().Malformed; got != uint64(len(bad)) {
		t.Errorf("%d of %d were counted", got, len(bad))
	}
}

func TestSendReliable(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	a := nodes[0]
	bag, own := attach(t, nodes[1], nil), attach(t, a, nil)
	ctx := testContext(t)
	big := string(bytes.Repeat([]byte("big"), 1<<20))
	for _, payload := range []string{"x", big} {
		if err := a.SendReliable(ctx, "node2", []byte(payload)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it arrives", func() bool { return slices.Contains(bag.got(), payload) })
	}
	if err := a.SendReliable(ctx, "node1", []byte("to myself")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it arrives", func() bool { return slices.Contains(own.got(), "to myself") })
	var limit *codec.LimitError
	if err := a.SendReliable(ctx, "node2", make([]byte, MaxReliable+1)); !errors.As(err, &limit) {
		t.Errorf("too large: %v", err)
	}
	if err := a.SendReliable(ctx, "node2", nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
	if err := a.SendReliable(ctx, "node9", []byte("x")); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("unknown: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.SendReliable(cancelled, "node2", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	_ = nodes[1].Close()
	if err := a.SendReliable(ctx, "node2", []byte("x")); err == nil {
		t.Error("written to a node that is gone")
	}
	waitStatus(t, a, "node2", Failed)
	if err := a.SendReliable(ctx, "node2", []byte("x")); !errors.Is(err, ErrFailed) {
		t.Errorf("failed: %v", err)
	}
	if s := a.Stats(); s.ReliableSent != 3 || s.ReliableFailed != 1 {
		t.Errorf("%d sent, %d failed", s.ReliableSent, s.ReliableFailed)
	}
}

// TestSendReliableToMutePeer: the peer takes no bytes; memberlist has no write deadline.
func TestSendReliableToMutePeer(t *testing.T) {
	t.Parallel()
	a := start(t, "node1")
	mute := muteListener(t)
	h, err := parseHostPort(mute)
	if err != nil {
		t.Fatal(err)
	}
	peer := claimOf(t, &codec.Metadata{Name: "mute", Instance: 7, Epoch: 1})
	peer.Port = uint16(h.port)
	(&delegate{a}).NotifyJoin(peer)
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, cause)
	defer cancel()
	if err := a.SendReliable(ctx, "mute", make([]byte, 16<<20)); !errors.Is(err, cause) {
		t.Errorf("time is up: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = a.Close() })
	if err := a.SendReliable(context.Background(), "mute", make([]byte, 16<<20)); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
