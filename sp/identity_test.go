package sp_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// byCertificate names a peer as its certificate does.
func byCertificate(_ context.Context, c sp.ConnInfo) (string, error) {
	return c.TLS.PeerCertificates[0].Subject.CommonName, nil
}

func TestIdentify(t *testing.T) {
	ca := newAuthority(t)
	var mu sync.Mutex
	var seen []sp.ConnInfo
	look := func(ctx context.Context, c sp.ConnInfo) (string, error) {
		if t, ok := ctx.Deadline(); !ok || time.Until(t) > 10*time.Second {
			return "", errors.New("without a deadline")
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c)
		return byCertificate(ctx, c)
	}
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1"), Identify: look})
	req := newRequester(t, rep.URL(), sp.Config{TLS: ca.mutual("node2"), Identify: look})
	if _, err := req.Request(within(t, soon), nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 || seen[0].Dialed == seen[1].Dialed {
		t.Fatalf("%+v", seen)
	}
	for _, c := range seen {
		if name := c.TLS.PeerCertificates[0].Subject.CommonName; name != map[bool]string{true: "node1", false: "node2"}[c.Dialed] {
			t.Errorf("dialed %v: %s", c.Dialed, name)
		}
		if c.Dialed && c.Remote.String() != hostport(rep.URL()) || !c.Dialed && c.Local.String() != hostport(rep.URL()) {
			t.Errorf("%+v", c)
		}
	}
}

// Handlers hear who sent a message.
func TestHandlersKnowThePeer(t *testing.T) {
	ca := newAuthority(t)
	named := sp.Config{TLS: ca.mutual("node1"), Identify: byCertificate}
	rep := newTLSReplier(t, func(_ context.Context, in sp.Inbound) []byte { return []byte(in.Peer) }, named)
	from := make(chan string, 10)
	pull := newTLSPuller(t, func(_ context.Context, in sp.Inbound) { from <- in.Peer }, named)
	for _, name := range []string{"node2", "node3"} {
		cfg := sp.Config{TLS: ca.mutual(name)}
		if b, err := newRequester(t, rep.URL(), cfg).Request(within(t, soon), nil); err != nil || string(b) != name {
			t.Errorf("request of %s: from %q, %v", name, b, err)
		}
		if err := newPusher(t, pull.URL(), cfg).Send(within(t, soon), nil); err != nil {
			t.Fatal(err)
		}
		if b := <-from; b != name {
			t.Errorf("push of %s: from %q", name, b)
		}
	}
	plain := newReplier(t, func(_ context.Context, in sp.Inbound) []byte { return []byte("<" + in.Peer + ">") }, sp.Config{})
	if b, err := newRequester(t, plain.URL(), sp.Config{}).Request(within(t, soon), nil); err != nil || string(b) != "<>" {
		t.Errorf("without Identify: %q, %v", b, err)
	}
}

// A listener that refuses makes the dial fail, and so does a dialer; it is counted and
// logged with the address.
func TestIdentifyRefuses(t *testing.T) {
	ca := newAuthority(t)
	why := errors.New("not in this cluster")
	refuse := func(context.Context, sp.ConnInfo) (string, error) { return "", why }
	log, text := logged()
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1"), Identify: refuse, Logger: log})
	for name, dial := range dials {
		if err := dial(within(t, soon), rep.URL(), sp.Config{TLS: ca.mutual("node2")}); err == nil {
			t.Errorf("%s was let in", name)
		}
	}
	eventually(t, "counted", func() bool {
		st := rep.Stats()
		return st.Unidentified == 1 && st.HandshakeFailed == 1 && st.Accepted == 0 && st.Pending == 0 // one is no requester
	})
	if s := text(); !strings.Contains(s, why.Error()) || !strings.Contains(s, "127.0.0.1") {
		t.Errorf("log: %s", s)
	}

	open := newReplier(t, echo, sp.Config{})
	if err := dials["requester"](within(t, soon), open.URL(), sp.Config{Identify: refuse}); !errors.Is(err, why) {
		t.Errorf("the dialer's own: %v", err)
	}
}

// Identify is within the handshake's deadline, the dial's context and the listener's
// life.
func TestIdentifyIsBounded(t *testing.T) {
	var waiting atomic.Int32
	slow := func(ctx context.Context, _ sp.ConnInfo) (string, error) {
		waiting.Add(1)
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	rep := newReplier(t, echo, sp.Config{Identify: slow, HandshakeTimeout: 100 * time.Millisecond})
	if err := dials["requester"](within(t, soon), rep.URL(), sp.Config{}); err == nil {
		t.Error("let in")
	}
	eventually(t, "counted", func() bool { st := rep.Stats(); return st.Unidentified == 1 && st.Pending == 0 })

	open := newReplier(t, echo, sp.Config{})
	err := dials["requester"](within(t, 100*time.Millisecond), open.URL(), sp.Config{Identify: slow, HandshakeTimeout: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the dial's context: %v", err)
	}
	err = dials["requester"](within(t, soon), open.URL(), sp.Config{Identify: slow, HandshakeTimeout: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "not identified within 100ms") {
		t.Errorf("HandshakeTimeout: %v", err)
	}

	waiting.Store(0)
	rep = newReplier(t, echo, sp.Config{Identify: slow, HandshakeTimeout: time.Hour})
	c := dialTCP(t, rep.URL())
	_, _ = c.Write(greeting(protoReq))
	eventually(t, "it asks", func() bool { return waiting.Load() == 1 })
	closed := make(chan struct{})
	go func() { _ = rep.Close(); close(closed) }()
	wait(t, "closed", closed)
}

func TestMaxPerPeer(t *testing.T) {
	ca := newAuthority(t)
	log, text := logged()
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1"), Identify: byCertificate, MaxPerPeer: 2, Logger: log})
	node2, node3 := ca.mutual("node2"), ca.mutual("node3")
	first := newRequester(t, rep.URL(), sp.Config{TLS: node2})
	newRequester(t, rep.URL(), sp.Config{TLS: node2})
	if err := dials["requester"](within(t, soon), rep.URL(), sp.Config{TLS: node2}); err == nil {
		t.Error("a third connection")
	}
	newRequester(t, rep.URL(), sp.Config{TLS: node3})
	eventually(t, "counted", func() bool { st := rep.Stats(); return st.OverPerPeer == 1 && st.Refused == 1 && st.Pipes == 3 })
	if s := text(); !strings.Contains(s, "too many connections of one peer") || !strings.Contains(s, "node2") {
		t.Errorf("log: %s", s)
	}
	_ = first.Close()
	eventually(t, "one has left", func() bool { return rep.Stats().Pipes == 2 })
	newRequester(t, rep.URL(), sp.Config{TLS: node2})
}
