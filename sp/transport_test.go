package sp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pub"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	"go.nanomsg.org/mangos/v3/protocol/sub"

	"github.com/parley-mesh/parley/sp"
)

// listenOurs has a mangos socket listen on our transport.
func listenOurs(t *testing.T, s mangos.Socket, scheme string, options map[string]any) mangos.Listener {
	t.Helper()
	sp.RegisterTransport()
	if options == nil {
		options = map[string]any{}
	}
	if options[sp.OptionConfig] == nil {
		options[sp.OptionConfig] = quiet(sp.Config{})
	}
	l, err := s.NewListener(scheme+"://127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	return l
}

func statsOf(t *testing.T, l interface{ GetOption(string) (any, error) }) sp.Stats {
	t.Helper()
	v, err := l.GetOption(sp.OptionStats)
	if err != nil {
		t.Fatal(err)
	}
	return v.(sp.Stats)
}

// Stock protocols work over our transport, also those that share one message among
// several pipes, and with our roles on the other side.
func TestStockProtocolsOnOurTransport(t *testing.T) {
	sp.RegisterTransport()
	sp.RegisterTransport() // once more does no harm

	a, b := stock(t, rep.NewSocket), stock(t, req.NewSocket)
	url := listenOurs(t, a, sp.Scheme, nil).Address()
	if !strings.HasPrefix(url, "parley+tcp://127.0.0.1:") || strings.HasSuffix(url, ":0") {
		t.Errorf("address %s", url)
	}
	if err := b.Dial(url); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			m, err := a.Recv()
			if err != nil || a.Send(m) != nil {
				return
			}
		}
	}()
	for _, n := range []int{0, 1, 100, 65536, 500000} {
		if err := b.Send(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if m, err := b.Recv(); err != nil || len(m) != n {
			t.Fatalf("%d bytes: %d back, %v", n, len(m), err)
		}
	}
	ours := newRequester(t, strings.TrimPrefix(url, "parley+"), sp.Config{})
	if m, err := ours.Request(within(t, soon), []byte("hi")); err != nil || string(m) != "hi" {
		t.Errorf("our requester at a stock REP: %q, %v", m, err)
	}

	p := stock(t, pub.NewSocket)
	l := listenOurs(t, p, sp.Scheme, nil)
	var subs []mangos.Socket
	for range 3 {
		s := stock(t, sub.NewSocket)
		_ = s.SetOption(mangos.OptionSubscribe, "")
		if err := s.Dial(l.Address()); err != nil {
			t.Fatal(err)
		}
		subs = append(subs, s)
	}
	eventually(t, "all are subscribed", func() bool {
		if err := p.Send(nil); err != nil {
			t.Fatal(err)
		}
		for _, s := range subs {
			_ = s.SetOption(mangos.OptionRecvDeadline, time.Millisecond)
			_, err := s.Recv()
			_ = s.SetOption(mangos.OptionRecvDeadline, soon)
			if err != nil {
				return false
			}
		}
		return true
	})
	for i := range 50 {
		if err := p.Send(fmt.Appendf(nil, "news %d", i)); err != nil {
			t.Fatal(err)
		}
		for _, s := range subs {
			m, err := s.Recv()
			for err == nil && len(m) == 0 {
				m, err = s.Recv()
			}
			if err != nil || string(m) != fmt.Sprintf("news %d", i) {
				t.Fatalf("message %d: %q, %v", i, m, err)
			}
		}
	}
}

// mangos' core dials again when a connection of its own sockets is lost.
func TestStockRedials(t *testing.T) {
	q := stock(t, push.NewSocket)
	pull1 := newPuller(t, func(context.Context, sp.Inbound) {}, sp.Config{})
	sp.RegisterTransport()
	d, err := q.NewDialer("parley+"+pull1.URL(), map[string]any{
		mangos.OptionReconnectTime: time.Millisecond,
		sp.OptionConfig:            quiet(sp.Config{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Dial(); err != nil {
		t.Fatal(err)
	}
	url := pull1.URL()
	eventually(t, "connected", func() bool { return pull1.Stats().Pipes == 1 })
	_ = pull1.Close()
	got := make(chan string, 100)
	pull2, err := sp.ListenPuller(url, func(_ context.Context, in sp.Inbound) { got <- string(in.Body) }, quiet(sp.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer pull2.Close()
	eventually(t, "connected again", func() bool { return pull2.Stats().Pipes == 1 })
	if err := q.Send([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != "still here" {
		t.Errorf("%q", b)
	}
}

// Closing a socket ends its dials and its handshakes, though the peer is mute.
func TestStockCloseEndsDialsAndHandshakes(t *testing.T) {
	sp.RegisterTransport()
	mute := listenRaw(t)
	q := stock(t, req.NewSocket)
	done := make(chan error, 1)
	go func() {
		done <- q.DialOptions("parley+"+mute.url(), map[string]any{
			sp.OptionConfig: quiet(sp.Config{HandshakeTimeout: time.Hour}),
		})
	}()
	time.AfterFunc(soon, func() { _ = mute.Close() })
	c, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.ReadFull(c, make([]byte, 8)) // it is in the handshake
	_ = q.Close()
	select {
	case err := <-done:
		if !errors.Is(err, mangos.ErrClosed) {
			t.Errorf("the dial ended with %v", err)
		}
	case <-time.After(soon):
		t.Fatal("the dial goes on")
	}
	if err := q.Dial("parley+" + mute.url()); !errors.Is(err, mangos.ErrClosed) {
		t.Errorf("a dial after the close: %v", err)
	}

	p := stock(t, rep.NewSocket)
	l := listenOurs(t, p, sp.Scheme, map[string]any{sp.OptionConfig: quiet(sp.Config{HandshakeTimeout: time.Hour})})
	stranger := dialTCP(t, strings.TrimPrefix(l.Address(), "parley+"))
	eventually(t, "a stranger is in the handshake", func() bool { return statsOf(t, l).Pending == 1 })
	_ = p.Close()
	_ = (&rawConn{stranger, t}).ended()
}

// The listener's caps hold for mangos' sockets, too.
func TestStockCaps(t *testing.T) {
	p := stock(t, pull.NewSocket)
	l := listenOurs(t, p, sp.Scheme, map[string]any{
		sp.OptionConfig:          quiet(sp.Config{MaxPending: 4, MaxPipes: 4}),
		mangos.OptionMaxRecvSize: 1000,
	})
	url := strings.TrimPrefix(l.Address(), "parley+")
	for range 2 {
		dialRaw(t, url, protoPush)
	}
	c := dialTCP(t, url)
	_, _ = c.Write(greeting(protoPush))
	_ = (&rawConn{c, t}).ended()
	eventually(t, "the third is refused", func() bool { st := statsOf(t, l); return st.Accepted == 2 && st.Refused == 1 })

	p2 := stock(t, pull.NewSocket)
	l2 := listenOurs(t, p2, sp.Scheme, map[string]any{mangos.OptionMaxRecvSize: 1000})
	big := dialRaw(t, strings.TrimPrefix(l2.Address(), "parley+"), protoPush)
	big.send([]byte{0, 0, 0, 0, 0, 0, 4, 0})
	_ = big.ended()
	eventually(t, "too large is counted", func() bool { return statsOf(t, l2).TooLarge == 1 })
	for i := range 20 {
		dialTCP(t, strings.TrimPrefix(l2.Address(), "parley+"))
		if st := statsOf(t, l2); st.Pending > 64 {
			t.Fatalf("%d: %+v", i, st)
		}
	}
}

// A stock PULL that presses back on a stock PUSH that listens is not a stalled peer.
func TestStockBackPressure(t *testing.T) {
	p := stock(t, push.NewSocket)
	l := listenOurs(t, p, sp.Scheme, map[string]any{sp.OptionConfig: quiet(sp.Config{StallTimeout: 100 * time.Millisecond})})
	c := dialRaw(t, strings.TrimPrefix(l.Address(), "parley+"), protoPull)
	const n, size = 256, 64 << 10
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range n {
			if err := p.Send(make([]byte, size)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var before uint64
	eventually(t, "it presses back", func() bool { // nothing moves for five StallTimeouts
		before = statsOf(t, l).MessagesOut
		time.Sleep(500 * time.Millisecond)
		return statsOf(t, l).MessagesOut == before
	})
	for i := range n {
		if b, err := c.recv(); err != nil || len(b) != size {
			t.Fatalf("message %d: %d bytes, %v", i, len(b), err)
		}
	}
	<-sent
	if st := statsOf(t, l); st.Stall != 0 {
		t.Errorf("%+v", st)
	}
}

func TestStockOptions(t *testing.T) {
	sp.RegisterTransport()
	s := stock(t, req.NewSocket)
	for name, value := range map[string]any{
		mangos.OptionMaxRecvSize: 1000, mangos.OptionNoDelay: true, mangos.OptionKeepAlive: true,
		mangos.OptionKeepAliveTime: time.Minute, sp.OptionConfig: quiet(sp.Config{}),
	} {
		d, err := s.NewDialer("parley+tcp://127.0.0.1:1", map[string]any{name: value})
		if err != nil {
			t.Errorf("dialer with %s: %v", name, err)
			continue
		}
		if v, err := d.GetOption(name); name != sp.OptionConfig && (err != nil || v != value) {
			t.Errorf("%s is %v, %v", name, v, err)
		}
		if err := d.SetOption(name, struct{}{}); err != mangos.ErrBadValue {
			t.Errorf("nonsense as %s: %v", name, err)
		}
		if _, err := s.NewListener("parley+tcp://127.0.0.1:0", map[string]any{name: value}); err != nil {
			t.Errorf("listener with %s: %v", name, err)
		}
	}
	if _, err := s.NewDialer("parley+tcp://127.0.0.1:1", map[string]any{"NONSENSE": 1}); err != mangos.ErrBadOption {
		t.Errorf("an unknown option: %v", err)
	}
	if _, err := s.NewDialer("parley+tcp://127.0.0.1:1", map[string]any{mangos.OptionTLSConfig: nil}); err != mangos.ErrBadOption {
		t.Errorf("TLS for plain TCP: %v", err)
	}
	if err := s.Dial("parley+tls+tcp://127.0.0.1:1"); err != mangos.ErrTLSNoConfig {
		t.Errorf("TLS without a configuration: %v", err)
	}
	d, err := s.NewDialer("parley+tcp://127.0.0.1:1", map[string]any{sp.OptionConfig: quiet(sp.Config{MaxPipes: -1})})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Dial(); err == nil || !strings.Contains(err.Error(), "MaxPipes") {
		t.Errorf("a bad Config: %v", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	if err := s.Dial("parley+tcp://" + free.Addr().String()); err == nil || errors.Is(err, mangos.ErrClosed) {
		t.Errorf("nobody there: %v", err)
	}
}
