package cluster

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/parley-mesh/parley/codec"
)

func TestPeerState(t *testing.T) {
	for _, s := range []peerState{
		{from: identity{"a", 1}, consumer: []byte{}},
		{from: identity{"node1", 1 << 63}, departed: []identity{{"b", 2}, {"c-3", 3}}, consumer: []byte("state")},
	} {
		b := s.append(nil)
		got, err := parseState(b)
		if err != nil || !reflect.DeepEqual(*got, s) {
			t.Errorf("%+v became %+v, %v", s, got, err)
		}
		for cut := range b {
			if _, err := parseState(b[:cut]); err == nil {
				t.Errorf("%d of %d bytes were accepted", cut, len(b))
			}
		}
		if _, err := parseState(append(b, 0)); !errors.Is(err, errState) {
			t.Errorf("a trailing byte: %v", err)
		}
	}
	var version *codec.VersionError
	if _, err := parseState([]byte{2}); !errors.As(err, &version) {
		t.Errorf("another version: %v", err)
	}
	var limit *codec.LimitError
	for _, s := range []peerState{
		{from: identity{"a", 1}, consumer: make([]byte, MaxGossipState+1)},
		{from: identity{"a", 1}, consumer: make([]byte, maxState)},
	} {
		if _, err := parseState(s.append(nil)); !errors.As(err, &limit) {
			t.Errorf("too large: %v", err)
		}
	}
	many := peerState{from: identity{"a", 1}, departed: slices.Repeat([]identity{{"b", 2}}, maxDeparted+1)}
	if _, err := parseState(many.append(nil)); !errors.Is(err, errState) {
		t.Errorf("too many departed: %v", err)
	}
	for _, id := range []identity{{"", 1}, {"a\n", 1}, {"a", 0}} {
		s := peerState{from: id}
		if _, err := parseState(s.append(nil)); !errors.Is(err, errState) {
			t.Errorf("%+v: %v", id, err)
		}
	}
}

func FuzzParseState(f *testing.F) {
	for _, s := range []peerState{
		{from: identity{"a", 1}},
		{from: identity{"node1", 1 << 63}, departed: []identity{{"b", 2}, {"c-3", 3}}, consumer: []byte("state")},
	} {
		f.Add(s.append(nil))
	}
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err == nil && !bytes.Equal(s.append(nil), b) {
			t.Errorf("%x was accepted and is written otherwise", b)
		}
	})
}

// FuzzReceive: whatever arrives is counted or delivered, and no more.
func FuzzReceive(f *testing.F) {
	f.Add(newFrame(frameGossip, []byte("x")))
	f.Add(goodbyeFrame("node2", 7))
	f.Add([]byte{})
	n := &Node{table: newTable(memberKey("node1", 1), 4), key: memberKey("node1", 1), inbox: newInbox(), news: make(chan struct{})}
	n.inbox.on.Store(true)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := n.stats.malformed.Load()
		n.receive(b)
		payload, delivered := n.inbox.pop()
		if delivered && (len(b) < 3 || !bytes.Equal(payload, b[2:])) {
			t.Errorf("%x was delivered as %x", b, payload)
		}
		if malformed := n.stats.malformed.Load() != before; malformed && delivered {
			t.Errorf("%x was delivered and refused", b)
		}
	})
}
