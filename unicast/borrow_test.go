package unicast

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// TestWhoBorrows: only who asked for it gets a body that is lent, however it is found.
func TestWhoBorrows(t *testing.T) {
	m, err := Listen(nowhere{}, nil, Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var frame, body []byte
	note := HandlerFunc(func(_ context.Context, msg Message) ([]byte, error) {
		body = msg.Body
		return nil, nil
	})
	inner, outer := NewMux(), NewMux()
	for _, r := range []struct {
		mux     *Mux
		pattern string
		h       Handler
	}{
		{inner, "in.lent", Borrow(note)}, {inner, "in.own", note},
		{outer, "in.*", inner}, {outer, "lent", Borrow(note)}, {outer, "own", note},
		{outer, "wrapped", HandlerFunc(Borrow(note).Handle)}, {outer, "all", Borrow(NewMux())},
	} {
		if err := r.mux.Route(r.pattern, r.h); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Reserve("$own", func(_ context.Context, _ string, b []byte) ([]byte, error) {
		body = b
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	type embeds struct{ *Mux } // is no Mux
	seq := uint64(0)
	for _, row := range []struct {
		h     Handler
		topic string
		lent  bool
	}{
		{note, "", false}, {Borrow(note), "", true}, {Borrow(Borrow(note)), "", true},
		{outer, "own", false}, {outer, "lent", true}, {outer, "in.own", false}, {outer, "in.lent", true},
		{outer, "wrapped", false}, {embeds{outer}, "lent", false}, {outer, "$own", false},
	} {
		m.handler = row.h
		for _, kind := range []codec.Kind{codec.KindPush, codec.KindSend} {
			seq++
			env := codec.Envelope{Kind: kind, ID: codec.NewID(7, seq), From: "x", To: "node1", Topic: row.topic, Body: []byte("body")}
			frame, err = env.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			body = nil
			in := sp.Inbound{Body: frame, Remote: &net.TCPAddr{}}
			if kind == codec.KindPush {
				m.onPush(t.Context(), in)
			} else {
				m.onRequest(t.Context(), in)
			}
			if string(body) != "body" {
				t.Fatalf("%T %q: the handler saw %q", row.h, row.topic, body)
			}
			clear(frame)
			if lent := !bytes.Equal(body, []byte("body")); lent != row.lent {
				t.Errorf("%T %q: the body of a %v is lent: %v", row.h, row.topic, kind, lent)
			}
		}
	}
	for _, topic := range []string{"all", "nothing"} {
		m.handler = outer
		if h, _ := find(m.handler, topic); h != nil {
			t.Errorf("%s is handled by %v", topic, h)
		}
	}
}

// TestBodiesAreTheHandlers: what a handler keeps stays what it was, whatever
// arrives afterwards; and what is lent to it is right while it has it.
func TestBodiesAreTheHandlers(t *testing.T) {
	sizes := []int{1, 100, takeFrom - 1, takeFrom, 20 << 10, 100 << 10, 1 << 20}
	fill := func(i, size int) []byte { return bytes.Repeat([]byte(fmt.Sprint(i%10)), size)[:size] }
	for _, borrow := range []bool{false, true} {
		kept := make(chan []byte, 1000)
		var h Handler = HandlerFunc(func(_ context.Context, m Message) ([]byte, error) {
			b := m.Body
			if borrow {
				b = bytes.Clone(b)
			}
			kept <- b
			return m.Body, nil
		})
		if borrow {
			h = Borrow(h)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cluster := newStill()
		there, err := Listen(cluster.node("node2"), h, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		m, err := Listen(cluster.node("node1"), nil, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		const n = 70
		for i := range n {
			size := sizes[i%len(sizes)]
			reply, err := m.Request(ctx, "node2", "", fill(i, size))
			if err != nil || !bytes.Equal(reply, fill(i, size)) {
				t.Fatalf("reply of %d bytes, %v", len(reply), err)
			}
		}
		for i := range n {
			if err := m.Push(ctx, "node2", "", fill(i, sizes[i%len(sizes)])); err != nil {
				t.Fatal(err)
			}
		}
		var bodies [][]byte
		for range 2 * n { // all, before any of them is looked at
			select {
			case b := <-kept:
				bodies = append(bodies, b)
			case <-time.After(20 * time.Second):
				t.Fatalf("%d of %d came", len(bodies), 2*n)
			}
		}
		for i, b := range bodies {
			if !bytes.Equal(b, fill(i%n, sizes[i%n%len(sizes)])) {
				t.Errorf("body %d, of %d bytes, is another", i, len(b))
			}
		}
	}
}
