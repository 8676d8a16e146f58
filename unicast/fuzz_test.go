package unicast

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"testing"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// nowhere is a Directory of one node, that cannot be reached.
type nowhere struct{}

var errNowhere = errors.New("nowhere")

func (nowhere) Name() string                                   { return "node1" }
func (nowhere) Instance() uint64                               { return 42 }
func (nowhere) BindHost() string                               { return "127.0.0.1" }
func (nowhere) Lookup(_, _ string) (e codec.Endpoint, _ error) { return e, errNowhere }
func (nowhere) Advertise(_, _ string) error                    { return nil }
func (nowhere) Withdraw(string) error                          { return nil }
func (nowhere) Providers(ctx context.Context, _ string) iter.Seq[map[string]codec.Endpoint] {
	return func(func(map[string]codec.Endpoint) bool) { <-ctx.Done() }
}

// FuzzReceive gives what strangers may send to both endpoints.
func FuzzReceive(f *testing.F) {
	seed := func(e codec.Envelope) {
		b, err := e.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(append(b, 0))
	}
	for kind := codec.KindPush; kind <= codec.KindBroadcast; kind++ {
		seed(codec.Envelope{Kind: kind, ID: codec.NewID(1, uint64(kind)), From: "x", To: "node1", ToInstance: 42, Topic: "a", Body: []byte("b")})
	}
	seed(codec.Envelope{Kind: codec.KindRequest, ID: codec.NewID(2, 1), From: "x", To: "node1", Topic: "panic"})
	seed(codec.Envelope{Kind: codec.KindRequest, ID: codec.NewID(2, 2), From: "x", To: "node1", Topic: "$reserved"})
	seed(codec.Envelope{Kind: codec.KindRequest, ID: codec.NewID(2, 3), From: "x", To: "node1", Timeout: 1, Topic: "error"})
	seed(codec.Envelope{Kind: codec.KindSend, ID: codec.NewID(2, 4), From: "x", To: "node2"})
	seed(codec.Envelope{Kind: codec.KindSend, ID: codec.NewID(2, 5), From: "x", To: "node1", Body: make([]byte, 200)})
	f.Add([]byte("hello"))
	f.Add([]byte{})

	m, err := Listen(nowhere{}, nil, Config{MaxMessage: 100, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	var handled *Message
	m.handler = HandlerFunc(func(_ context.Context, msg Message) ([]byte, error) {
		handled = &msg
		switch msg.Topic {
		case "panic":
			panic(msg.Body)
		case "error":
			return nil, errors.New(string(msg.Body))
		}
		return msg.Body, nil
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := sp.Inbound{Body: b, Remote: &net.TCPAddr{}}
		env, parseErr := codec.ParseEnvelope(b, m.cfg.maxReserved())
		check := func(endpoint string, kinds ...codec.Kind) {
			if handled == nil {
				return
			}
			if parseErr != nil || env.To != "node1" || env.ToInstance != 0 && env.ToInstance != 42 ||
				len(env.Body) > 100 || reservedTopic(env.Topic) {
				t.Errorf("%s: the handler saw %+v", endpoint, env)
			}
			for _, kind := range kinds {
				if handled.Kind == kind {
					return
				}
			}
			t.Errorf("%s: the handler saw a %v", endpoint, handled.Kind)
		}
		for again := range 2 {
			handled = nil
			raw := m.onRequest(context.Background(), in)
			check("REP", codec.KindSend, codec.KindRequest)
			if again > 0 && handled != nil {
				t.Error("a message was handled twice")
			}
			if raw == nil {
				continue
			}
			reply, err := codec.ParseReply(raw, m.cfg.MaxMessage)
			if err != nil {
				t.Fatalf("our own reply: %v", err)
			}
			if id, ok := codec.EnvelopeID(b); reply.ID != id || !ok && reply.Status != codec.StatusMalformed {
				t.Errorf("reply %+v to message %v", reply, id)
			}
			if (reply.Status == codec.StatusOK || reply.Status == codec.StatusHandlerError) && handled == nil && env.Kind != codec.KindPing {
				t.Errorf("reply %+v, and nobody handled it", reply)
			}
		}
		handled = nil
		m.onPush(context.Background(), in)
		check("PULL", codec.KindPush)
	})
}
