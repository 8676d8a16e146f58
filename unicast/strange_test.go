package unicast_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/unicast"
)

// fakeReplier is a node that answers as answer says.
func (w *world) fakeReplier(t *testing.T, name string, answer func(codec.Envelope) []byte) *sp.Replier {
	t.Helper()
	rep, err := sp.ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) []byte {
		env, err := codec.ParseEnvelope(in.Body, 1<<20)
		if err != nil {
			t.Error(err)
		}
		return answer(env)
	}, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rep.Close() })
	w.node(name)
	w.change(name, func(p *place) { p.services[unicast.ServiceRep] = rep.URL() })
	return rep
}

func encoded(r *codec.Reply) []byte {
	b, err := r.Append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// rawRequest sends env as a stranger would.
func rawRequest(t *testing.T, url string, env *codec.Envelope) codec.Reply {
	t.Helper()
	b, err := env.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := rawBytes(t, within(t), url, b)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := codec.ParseReply(raw, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func rawBytes(t *testing.T, ctx context.Context, url string, b []byte) ([]byte, error) {
	t.Helper()
	req, err := sp.DialRequester(within(t), url, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer req.Close()
	return req.Request(ctx, b)
}

// TestStrangeReplies: what is not the answer to our message leaves it Unknown.
func TestStrangeReplies(t *testing.T) {
	w := newWorld()
	m := w.listen(t, "node1", nil, unicast.Config{})
	for name, answer := range map[string]func(codec.Envelope) []byte{
		"garbage": func(codec.Envelope) []byte { return []byte("hello") },
		"empty":   func(codec.Envelope) []byte { return []byte{} },
		"another": func(env codec.Envelope) []byte { return encoded(&codec.Reply{ID: codec.NewID(1, 1)}) },
		"large":   func(env codec.Envelope) []byte { return encoded(&codec.Reply{ID: env.ID, Body: make([]byte, 1<<20+1)}) },
	} {
		t.Run(name, func(t *testing.T) {
			w.fakeReplier(t, name, answer)
			wantFailure(t, m.Send(within(t), name, "", nil), unicast.Unknown)
		})
	}
	w.fakeReplier(t, "old", func(codec.Envelope) []byte {
		return encoded(&codec.Reply{Status: codec.StatusMalformed, Text: "version 9"})
	})
	wantFailure(t, m.Send(within(t), "old", "", nil), unicast.NotDelivered, unicast.ErrNotUnderstood)
}

// TestStrangeMessages: what a receiver refuses, how, and that it counts it.
func TestStrangeMessages(t *testing.T) {
	w := newWorld()
	handled := make(chan unicast.Message, 10)
	there := w.listen(t, "node2", on(func(_ context.Context, m unicast.Message) ([]byte, error) {
		handled <- m
		return nil, nil
	}), unicast.Config{MaxMessage: 1000})
	rep, pull := w.url("node2", unicast.ServiceRep), w.url("node2", unicast.ServicePull)
	send := func(edit func(*codec.Envelope)) *codec.Envelope {
		env := &codec.Envelope{Kind: codec.KindSend, ID: codec.NewID(9, 1), From: "x", To: "node2"}
		edit(env)
		return env
	}
	for _, row := range []struct {
		name string
		env  *codec.Envelope
		want codec.Status
	}{
		{"kind push", send(func(e *codec.Envelope) { e.Kind = codec.KindPush }), codec.StatusMalformed},
		{"kind gossip", send(func(e *codec.Envelope) { e.Kind = codec.KindGossip }), codec.StatusMalformed},
		{"too large", send(func(e *codec.Envelope) { e.Body = make([]byte, 1001) }), codec.StatusMalformed},
		{"wrong name", send(func(e *codec.Envelope) { e.To = "node3" }), codec.StatusWrongNode},
		{"wrong instance", send(func(e *codec.Envelope) { e.ToInstance = 99 }), codec.StatusWrongNode},
		{"reserved topic", send(func(e *codec.Envelope) { e.Topic = "$x" }), codec.StatusNoHandler},
	} {
		if got := rawRequest(t, rep, row.env); got.Status != row.want || got.ID != row.env.ID {
			t.Errorf("%s: reply %+v, want %v", row.name, got, row.want)
		}
	}
	// Not ours at all: no answer, since it could be taken for data.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if raw, err := rawBytes(t, ctx, rep, []byte("hello")); !errors.Is(err, context.Canceled) {
		t.Errorf("a foreign message was answered with %q, %v", raw, err)
	}
	push, err := sp.DialPusher(within(t), pull, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer push.Close()
	again := send(func(e *codec.Envelope) { e.ID, e.Kind, e.Topic = codec.NewID(9, 2), codec.KindPush, "twice" })
	for _, env := range []*codec.Envelope{
		send(func(*codec.Envelope) {}), again, again,
		send(func(e *codec.Envelope) { e.Kind, e.To = codec.KindPush, "node3" }),
	} {
		b, _ := env.Append(nil)
		push.Send(within(t), b)
	}
	push.Send(within(t), []byte("hello"))
	eventually(t, "everything was counted", func() bool {
		s := there.Stats()
		return s.Foreign == 2 && s.NotUnderstood == 4 && s.Send.WrongNode == 2 && s.Push.WrongNode == 1 &&
			s.Push.Duplicates == 1 && s.Push.Handled == 1
	})
	if m := await(t, "message", handled); m.Topic != "twice" || len(handled) != 0 {
		t.Errorf("the handler saw %+v, and %d more", m, len(handled))
	}
}

// TestNodeAtAReusedPort: at the address of node2 another node listens now.
func TestNodeAtAReusedPort(t *testing.T) {
	w := newWorld()
	w.listen(t, "node3", echo, unicast.Config{})
	w.node("node2")
	w.change("node2", func(p *place) { p.services[unicast.ServiceRep] = w.nodes["node3"].services[unicast.ServiceRep] })
	m := w.listen(t, "node1", nil, unicast.Config{})
	err := m.Send(within(t), "node2", "", nil)
	wantFailure(t, err, unicast.NotDelivered, unicast.ErrWrongNode)
	if !strings.HasSuffix(err.Error(), ": another node answered: it is node3 (NOT DELIVERED)") {
		t.Error(err)
	}
	eventually(t, "the connection to the wrong node is closed", func() bool { return m.Stats().Connections == 0 })
	// The same node, started anew, and we have not heard of it yet.
	w.change("node3", func(p *place) { p.instance += 100 })
	wantFailure(t, m.Send(within(t), "node3", "", nil), unicast.NotDelivered, unicast.ErrWrongNode)
	_, err = m.Ping(within(t), "node2")
	wantFailure(t, err, unicast.NotDelivered, unicast.ErrWrongNode)
}
