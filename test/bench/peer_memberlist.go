package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// memberlistPeer is memberlist's SendReliable, which makes a connection for each
// message. A reply is another such message; a number before the body says which
// request it belongs to.
type memberlistPeer struct{}

// memberlistNode is one of two nodes.
type memberlistNode struct {
	list  *memberlist.Memberlist
	other *memberlist.Node
	got   func(msg []byte) // called concurrently
}

func (n *memberlistNode) NodeMeta(int) []byte               { return nil }
func (n *memberlistNode) NotifyMsg(msg []byte)              { n.got(msg) }
func (n *memberlistNode) GetBroadcasts(_, _ int) [][]byte   { return nil }
func (n *memberlistNode) LocalState(bool) []byte            { return nil }
func (n *memberlistNode) MergeRemoteState(_ []byte, _ bool) {}

func startMemberlist(name string, n *memberlistNode) (err error) {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = name
	cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = "127.0.0.1", 0, 0
	cfg.LogOutput = io.Discard
	cfg.Delegate = n
	n.list, err = memberlist.Create(cfg)
	return err
}

// meet finds the other node.
func (n *memberlistNode) meet() error {
	for _, m := range n.list.Members() {
		if m.Name != n.list.LocalNode().Name {
			n.other = m
			return nil
		}
	}
	return fmt.Errorf("%s sees no other node", n.list.LocalNode().Name)
}

func (memberlistPeer) receive(t task, s *sink) (string, error) {
	n := &memberlistNode{}
	var mu sync.Mutex
	var met sync.Once
	n.got = func(msg []byte) {
		if t.kind == oneWay {
			mu.Lock()
			s.take(msg)
			mu.Unlock()
			return
		}
		met.Do(func() { n.meet() })
		if n.other != nil {
			n.list.SendReliable(n.other, msg) // a reply that is lost is seen by the sender
		}
	}
	if err := startMemberlist("receiver", n); err != nil {
		return "", err
	}
	return n.list.LocalNode().Address(), nil
}

func (memberlistPeer) connect(t task) (sender, error) {
	s := &memberlistSender{}
	s.got = func(msg []byte) {
		if c, ok := s.calls.Load(binary.BigEndian.Uint64(msg)); ok {
			c.(chan []byte) <- append([]byte(nil), msg[8:]...)
		}
	}
	if err := startMemberlist("sender", &s.memberlistNode); err != nil {
		return nil, err
	}
	if _, err := s.list.Join([]string{t.receiver}); err != nil {
		return nil, err
	}
	return s, s.meet()
}

type memberlistSender struct {
	memberlistNode
	last  atomic.Uint64
	calls sync.Map // number of a caller to its chan []byte
}

func (s *memberlistSender) caller() (roundTrip, error) {
	id, replies := s.last.Add(1), make(chan []byte, 1)
	s.calls.Store(id, replies)
	var msg []byte
	return func(body []byte) ([]byte, error) {
		msg = append(binary.BigEndian.AppendUint64(msg[:0], id), body...)
		if err := s.list.SendReliable(s.other, msg); err != nil {
			return nil, err
		}
		return <-replies, nil
	}, nil
}

func (s *memberlistSender) push(body []byte) error { return s.list.SendReliable(s.other, body) }
func (s *memberlistSender) flush() error           { return nil }
func (s *memberlistSender) close()                 { s.list.Shutdown() }
