package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// unicastPeer is our own package unicast between two nodes of a real cluster: each
// in a process of its own, and all further nodes together in a third. Its handler
// borrows bodies, or owns them as handlers do that say nothing.
type unicastPeer struct{ own bool }

const unicastTopic = "bench"

type unicastNode struct {
	cluster *cluster.Node
	mail    *unicast.Messenger
}

// start starts a node that answers requests and gives s what is pushed.
func (p unicastPeer) start(name, seed string, s *sink) (n unicastNode, err error) {
	n.cluster, err = cluster.Start(cluster.Config{Name: name, Bind: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return n, err
	}
	var handler unicast.Handler = unicast.HandlerFunc(func(_ context.Context, m unicast.Message) ([]byte, error) {
		if m.Kind == codec.KindPush {
			s.take(m.Body)
		}
		return m.Body, nil
	})
	if !p.own {
		handler = unicast.Borrow(handler)
	}
	n.mail, err = unicast.Listen(n.cluster, handler, unicast.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil || seed == "" {
		return n, err
	}
	_, err = n.cluster.Join(context.Background(), seed)
	return n, err
}

func furtherNode(i int) string { return fmt.Sprintf("node-%d", i) }

func (p unicastPeer) help(t task) (string, error) {
	seed := ""
	for i := range t.nodes - 2 {
		n, err := p.start(furtherNode(i), seed, nil)
		if err != nil {
			return "", err
		}
		if seed == "" {
			seed = n.cluster.Addr()
		}
	}
	return seed, nil
}

func (p unicastPeer) receive(t task, s *sink) (string, error) {
	n, err := p.start("receiver", t.helper, s)
	if err != nil {
		return "", err
	}
	return n.cluster.Addr(), nil
}

func (p unicastPeer) connect(t task) (sender, error) {
	n, err := p.start("sender", t.receiver, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for nodes := range n.cluster.Providers(ctx, unicast.ServicePull) {
		if len(nodes) == t.nodes {
			return &unicastSender{unicastNode: n, others: t.nodes - 2}, nil
		}
	}
	return nil, fmt.Errorf("the %d nodes do not find each other", t.nodes)
}

type unicastSender struct {
	unicastNode
	others, met int
}

func (s *unicastSender) caller() (roundTrip, error) {
	return func(body []byte) ([]byte, error) {
		return s.mail.Request(context.Background(), "receiver", unicastTopic, body)
	}, nil
}

// meet talks to the next of the further nodes.
func (s *unicastSender) meet(body []byte) ([]byte, bool, error) {
	if s.met == s.others {
		return nil, false, nil
	}
	s.met++
	reply, err := s.mail.Request(context.Background(), furtherNode(s.met-1), unicastTopic, body)
	return reply, true, err
}

func (s *unicastSender) push(body []byte) error {
	return s.mail.Push(context.Background(), "receiver", unicastTopic, body)
}

// flush has nothing to do: what was pushed is written without it.
func (s *unicastSender) flush() error { return nil }
func (s *unicastSender) close()       { s.mail.Close(); s.cluster.Close() }
