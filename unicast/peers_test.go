package unicast_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/unicast"
)

// Greetings of SP peers.
const (
	greetRep  = "\x00SP\x00\x00\x31\x00\x00"
	greetPull = "\x00SP\x00\x00\x51\x00\x00"
)

// TestMutePeers: whoever does not answer cannot hold a call past its context.
func TestMutePeers(t *testing.T) {
	for name, greeting := range map[string]string{"no greeting": "", "no reply": greetRep} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			peer := newRawPeer(t, greeting, true)
			w.place("mute", peer.url)
			m := w.listen(t, "node1", nil, unicast.Config{Timeout: 50 * time.Millisecond})
			var wg sync.WaitGroup
			check := func(err, cause error) {
				e, ok := errors.AsType[*unicast.Error](err)
				if !ok || !errors.Is(err, cause) || e.Outcome == unicast.Handled ||
					e.Outcome == unicast.Unknown && greeting == "" {
					t.Errorf("error is %v, want one of %v", err, cause)
				}
			}
			for range 20 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
					check(m.Send(ctx, "mute", "", nil), context.DeadlineExceeded)
					// Without a deadline the Messenger has one.
					check(m.Send(context.Background(), "mute", "", nil), context.DeadlineExceeded)
					ctx, cancel = context.WithTimeout(t.Context(), patience)
					time.AfterFunc(20*time.Millisecond, cancel)
					check(m.Send(ctx, "mute", "", nil), context.Canceled)
				})
			}
			finished := make(chan struct{})
			go func() { wg.Wait(); close(finished) }()
			await(t, "the calls end with their contexts", finished)
		})
	}
}

// TestGivenUpOnTheWay: the message is out, and the caller gives up.
func TestGivenUpOnTheWay(t *testing.T) {
	w := newWorld()
	peer := newRawPeer(t, greetRep, true)
	w.place("mute", peer.url)
	m := w.listen(t, "node1", nil, unicast.Config{})
	ctx, cancel := context.WithCancel(within(t))
	result := make(chan error, 1)
	go func() { result <- m.Send(ctx, "mute", "", make([]byte, 1000)) }()
	eventually(t, "it is there", func() bool { return peer.received.Load() > 1000 })
	cancel()
	wantFailure(t, await(t, "the call ends", result), unicast.Unknown, context.Canceled)
}

// place puts a node into the world that is only an address.
func (w *world) place(name, url string) {
	w.node(name)
	w.change(name, func(p *place) {
		p.services[unicast.ServiceRep] = url
		p.services[unicast.ServicePull] = url
	})
}

// rawPeer accepts connections, says its greeting and then nothing.
type rawPeer struct {
	url      string
	kill     context.CancelFunc // resets its connections
	accepted atomic.Int64       // connections
	received atomic.Int64       // bytes
}

func newRawPeer(t *testing.T, greeting string, reads bool) *rawPeer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	killed, kill := context.WithCancel(context.Background())
	p := &rawPeer{url: "tcp://" + l.Addr().String(), kill: kill}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			conn.Write([]byte(greeting))
			wg.Go(func() {
				if reads {
					io.Copy(p, conn)
				} else {
					<-killed.Done()
				}
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); kill(); wg.Wait() })
	return p
}

func (p *rawPeer) Write(b []byte) (int, error) {
	p.received.Add(int64(len(b)))
	return len(b), nil
}

// fill pushes to node until no more is accepted, and returns how many were.
func fill(t *testing.T, m *unicast.Messenger, node string, size int) (accepted uint64) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := m.Push(ctx, node, "", make([]byte, size))
		cancel()
		if err == nil {
			accepted++
		} else if errors.Is(err, unicast.ErrBusy) && m.Stats().PushesQueued > 0 {
			wantFailure(t, err, unicast.NotDelivered, context.DeadlineExceeded)
			return accepted
		}
	}
	t.Fatalf("the queue to %s does not become full", node)
	return 0
}

// proxy is a way to a node that can be cut.
type proxy struct {
	addr   string
	killed atomic.Int32
	target atomic.Pointer[string]

	mu    sync.Mutex
	conns []net.Conn
}

// lead makes new connections end at target.
func (p *proxy) lead(target string) { p.target.Store(&target) }

func newProxy(t *testing.T, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String()}
	p.lead(target)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", *p.target.Load())
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			pipe := func(to, from net.Conn) {
				defer to.Close()
				io.Copy(to, from)
			}
			wg.Go(func() { pipe(out, in) })
			wg.Go(func() { pipe(in, out) })
		}
	})
	t.Cleanup(func() { l.Close(); p.kill(); wg.Wait() })
	return p
}

// kill resets all connections.
func (p *proxy) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	p.killed.Add(int32(len(p.conns) / 2))
	p.conns = nil
}

// TestSilentConnectionIsNotUsedAgain: after a call that nothing at all was heard
// of, the next one does not trust the same connection.
func TestSilentConnectionIsNotUsedAgain(t *testing.T) {
	w := newWorld()
	peer := newRawPeer(t, greetRep, true)
	w.place("silent", peer.url)
	m := w.listen(t, "node1", nil, unicast.Config{})
	for i := range int64(3) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := m.Send(ctx, "silent", "", nil)
		cancel()
		wantFailure(t, err, unicast.Unknown, context.DeadlineExceeded)
		if n := peer.accepted.Load(); n != i+1 {
			t.Fatalf("call %d: %d connections were made", i, n)
		}
	}
	eventually(t, "the silent ones are closed", func() bool { return m.Stats().Connections == 0 })
}

// TestSlowCallsDoNotCostTheOthers: a deadline alone does not speak against a
// connection, and what is in flight on one that is not used again is answered.
func TestSlowCallsDoNotCostTheOthers(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", on(func(ctx context.Context, m unicast.Message) ([]byte, error) {
		if m.Topic == "quick" {
			return nil, nil
		}
		return h.Handle(ctx, m)
	}), unicast.Config{})
	m := w.listen(t, "node1", nil, unicast.Config{})
	patient := make(chan error, 1)
	go func() { patient <- m.Send(within(t), "node2", "", nil) }()
	await(t, "the patient one arrives", h.arrived)

	slow := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the quick one is quicker
		defer cancel()
		slow <- m.Send(ctx, "node2", "", nil)
	}()
	await(t, "a slow one arrives", h.arrived)
	if err := m.Send(within(t), "node2", "quick", nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the slow one ends", slow)
	if err := m.Send(within(t), "node2", "quick", nil); err != nil || m.Stats().Dials != 1 {
		t.Errorf("%v, %d dials; the connection was answering", err, m.Stats().Dials)
	}

	// Nothing is heard from now on until the patient one is answered.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Send(ctx, "node2", "", nil); err == nil {
		t.Error("who let it go?")
	}
	close(h.let)
	if err := await(t, "reply", patient); err != nil {
		t.Error(err)
	}
}

// TestPingGoesPastUsersRequests: it tells whether the node is there.
func TestPingGoesPastUsersRequests(t *testing.T) {
	w := newWorld()
	h := newBlock()
	w.listen(t, "node2", h, unicast.Config{InFlight: 2})
	m := w.listen(t, "node1", h, unicast.Config{InFlight: 2})
	for _, node := range []string{"node2", "node1"} {
		results := make(chan error, 2)
		for range cap(results) {
			go func() { results <- m.Send(within(t), node, "", nil) }()
			await(t, "request arrives", h.arrived)
		}
		if _, err := m.Ping(within(t), node); err != nil {
			t.Errorf("%s: %v", node, err)
		}
		for range cap(results) {
			h.let <- struct{}{}
			if err := await(t, "reply", results); err != nil {
				t.Error(err)
			}
		}
	}
}
