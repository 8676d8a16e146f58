package sp_test

import (
	"context"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	"go.nanomsg.org/mangos/v3/transport"
	"go.nanomsg.org/mangos/v3/transport/tcp"

	"github.com/parley-mesh/parley/sp"
)

// stock opens a stock mangos socket with deadlines.
func stock(t *testing.T, open func() (mangos.Socket, error)) mangos.Socket {
	t.Helper()
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, o := range []string{mangos.OptionRecvDeadline, mangos.OptionSendDeadline} {
		_ = s.SetOption(o, soon)
	}
	return s
}

func listenStock(t *testing.T, s mangos.Socket) string {
	t.Helper()
	l, err := s.NewListener(anyPort, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	return l.Address()
}

// A program that embeds us and uses mangos itself keeps mangos' own tcp, and the
// two understand each other.
func TestStockMangos(t *testing.T) {
	got := make(chan string, 1)
	ourRep := newReplier(t, echo, sp.Config{})
	ourPull := newPuller(t, func(_ context.Context, in sp.Inbound) { got <- string(in.Body) }, sp.Config{})
	if transport.GetTransport("tcp") != tcp.Transport {
		t.Fatal("mangos' tcp is not mangos' any more")
	}

	q := stock(t, req.NewSocket)
	if err := q.Dial(ourRep.URL()); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"", "hello", string(make([]byte, 1<<19))} {
		if err := q.Send([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if b, err := q.Recv(); err != nil || string(b) != body {
			t.Errorf("stock REQ of %d bytes: %d back, %v", len(body), len(b), err)
		}
	}
	p := stock(t, push.NewSocket)
	if err := p.Dial(ourPull.URL()); err != nil {
		t.Fatal(err)
	}
	if err := p.Send([]byte("pushed")); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != "pushed" {
		t.Errorf("stock PUSH: %q", b)
	}

	theirRep := stock(t, rep.NewSocket)
	ourReq := newRequester(t, listenStock(t, theirRep), sp.Config{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b, err := theirRep.Recv()
		if err == nil {
			err = theirRep.Send(append([]byte("re: "), b...))
		}
		if err != nil {
			t.Error(err)
		}
	}()
	if b, err := ourReq.Request(within(t, soon), []byte("x")); err != nil || string(b) != "re: x" {
		t.Errorf("stock REP: %q, %v", b, err)
	}
	<-done
	theirPull := stock(t, pull.NewSocket)
	ourPush := newPusher(t, listenStock(t, theirPull), sp.Config{})
	if err := ourPush.Send(within(t, soon), []byte("y")); err != nil {
		t.Fatal(err)
	}
	if b, err := theirPull.Recv(); err != nil || string(b) != "y" {
		t.Errorf("stock PULL: %q, %v", b, err)
	}
	if err := ourPush.Shutdown(within(t, soon)); err != nil {
		t.Errorf("stock PULL at the end: %v", err)
	}

	// And mangos to mangos, over mangos. The message arrives before the sockets
	// close, for a close during a handshake is a data race in mangos' tcp.
	a, b := stock(t, push.NewSocket), stock(t, pull.NewSocket)
	if err := a.Dial(listenStock(t, b)); err != nil {
		t.Fatal(err)
	}
	if err := a.Send([]byte("z")); err != nil {
		t.Error(err)
	}
	if z, err := b.Recv(); err != nil || string(z) != "z" {
		t.Errorf("mangos to mangos: %q, %v", z, err)
	}
}

// A stock REQ that gives up and resends, or leaves, does not confuse a Replier.
func TestStockMangosReconnects(t *testing.T) {
	r := newReplier(t, echo, sp.Config{})
	for range 20 {
		q := stock(t, req.NewSocket)
		_ = q.SetOption(mangos.OptionRetryTime, time.Millisecond)
		if err := q.Dial(r.URL()); err != nil {
			t.Fatal(err)
		}
		_ = q.Send([]byte("x"))
		_, _ = q.Recv()
		_ = q.Close()
	}
	eventually(t, "all have gone", func() bool { st := r.Stats(); return st.Pipes == 0 && st.Handling == 0 })
}
