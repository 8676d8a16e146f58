package unicast_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

func TestInboxIsBounded(t *testing.T) {
	put := func(b *unicast.Inbox, size int) error {
		_, err := b.Handle(t.Context(), unicast.Message{Kind: codec.KindSend, Body: make([]byte, size)})
		return err
	}
	byCount := unicast.NewInbox(2, 1000)
	byBytes := unicast.NewInbox(100, 1000)
	for range 2 {
		if err := errors.Join(put(byCount, 1), put(byBytes, 500)); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(byCount, 1); !errors.Is(err, unicast.ErrBusy) {
		t.Errorf("over the messages: %v, want ErrBusy", err)
	}
	if err := put(byBytes, 1); !errors.Is(err, unicast.ErrBusy) {
		t.Errorf("over the bytes: %v, want ErrBusy", err)
	}
	if byBytes.Len() != 2 {
		t.Errorf("Len is %d, want 2", byBytes.Len())
	}
	byBytes.Recv(t.Context())
	if err := put(byBytes, 500); err != nil {
		t.Errorf("after Recv there is no room: %v", err)
	}
	if err := put(unicast.NewInbox(1, 10), 100); err != nil {
		t.Errorf("an empty Inbox refused a large message: %v", err)
	}
}

func TestInboxDoesNotAnswer(t *testing.T) {
	b := unicast.NewInbox(0, 0)
	_, err := b.Handle(t.Context(), unicast.Message{Kind: codec.KindRequest})
	if !errors.Is(err, unicast.ErrNoListener) || b.Len() != 0 {
		t.Errorf("a request: %v, %d kept; want ErrNoListener", err, b.Len())
	}
}

func TestInboxKeepsOrderAndEnds(t *testing.T) {
	b := unicast.NewInbox(0, 0)
	for _, body := range []string{"one", "two"} {
		b.Handle(t.Context(), unicast.Message{Body: []byte(body)})
	}
	if m, err := b.Recv(t.Context()); string(m.Body) != "one" || err != nil {
		t.Fatalf("Recv: %q, %v", m.Body, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := b.Handle(t.Context(), unicast.Message{}); !errors.Is(err, unicast.ErrNoListener) {
		t.Errorf("Handle after Close: %v, want ErrNoListener", err)
	}
	if m, err := b.Recv(t.Context()); string(m.Body) != "two" || err != nil {
		t.Fatalf("what was taken before Close is gone: %q, %v", m.Body, err)
	}
	if _, err := b.Recv(t.Context()); !errors.Is(err, unicast.ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Recv at the end: %v, want ErrClosed", err)
	}
}

func TestInboxRecvWaits(t *testing.T) {
	b := unicast.NewInbox(0, 0)
	got := make(chan error)
	recv := func(ctx context.Context) {
		_, err := b.Recv(ctx)
		got <- err
	}
	go recv(t.Context())
	b.Handle(t.Context(), unicast.Message{})
	if err := await(t, "Recv of what came later", got); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go recv(ctx)
	cancel()
	if err := await(t, "Recv that was cancelled", got); !errors.Is(err, context.Canceled) {
		t.Errorf("Recv: %v, want that of its context", err)
	}
	go recv(t.Context())
	b.Close()
	if err := await(t, "Recv unblocked by Close", got); !errors.Is(err, unicast.ErrClosed) {
		t.Errorf("Recv: %v, want ErrClosed", err)
	}
}
