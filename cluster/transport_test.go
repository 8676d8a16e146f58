package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func testTransport(t *testing.T) *transport {
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	tr, err := listen(loopback, loopback, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Shutdown() })
	return tr
}

func TestTransportPackets(t *testing.T) {
	t.Parallel()
	a, b := testTransport(t), testTransport(t)
	for _, size := range []int{1, 1400, 65507} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := a.WriteTo(want, b.advertise.String()); err != nil {
			t.Fatal(err)
		}
		p := <-b.PacketCh()
		if !bytes.Equal(p.Buf, want) || p.From.String() != a.advertise.String() || p.Timestamp.IsZero() {
			t.Errorf("%d bytes arrived as %d from %v", size, len(p.Buf), p.From)
		}
		if cap(p.Buf) > 2*size+64 {
			t.Errorf("%d bytes hold %d", size, cap(p.Buf))
		}
	}
	if _, err := a.WriteTo([]byte("x"), "nowhere"); err == nil {
		t.Error("no error for an address that is none")
	}
}

func TestTransportStreams(t *testing.T) {
	t.Parallel()
	a, b := testTransport(t), testTransport(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, end := a.begin(ctx)
	defer end()
	out, err := a.DialAddressTimeout(memberlist.Address{Addr: b.advertise.String(), Name: c.name}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	in := <-b.StreamCh()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel() // the call's context ends its connection
	if _, err := in.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the call")
	}

	if _, err := a.DialTimeout(b.advertise.String(), time.Second); err != nil {
		t.Fatal(err)
	}
	in = <-b.StreamCh()
	_ = b.Shutdown() // ends the connections of both sides
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Shutdown: %v", err)
	}
	if err := b.Shutdown(); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
	_ = a.Shutdown()
	if _, err := a.DialTimeout(b.advertise.String(), time.Second); err == nil {
		t.Error("dialled after Shutdown")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.conns) != 0 {
		t.Errorf("%d connections are left", len(a.conns))
	}
}

func TestTransportLimitsStreams(t *testing.T) {
	t.Parallel()
	tr := testTransport(t)
	tr.mu.Lock()
	tr.inbound = maxStreams
	tr.mu.Unlock()
	conn, err := net.Dial("tcp", tr.advertise.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a stream over the limit stayed open")
	}
	if tr.refused.Load() != 1 {
		t.Errorf("%d refused streams were counted", tr.refused.Load())
	}
}
