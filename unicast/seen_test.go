package unicast

import (
	"testing"

	"github.com/parley-mesh/parley/codec"
)

func TestSeenRefusesDuplicates(t *testing.T) {
	var s seen
	for seq := range uint64(10 * seenMessages) {
		if !s.first(codec.NewID(1, seq)) {
			t.Fatalf("message %d was taken for a duplicate", seq)
		}
	}
	for back := range uint64(seenMessages) {
		if s.first(codec.NewID(1, 10*seenMessages-1-back)) {
			t.Fatalf("the message %d back was forgotten", back)
		}
	}
	if !s.first(codec.NewID(2, 10*seenMessages-1)) {
		t.Error("another sender's message was taken for a duplicate")
	}
}

func TestSeenIsBounded(t *testing.T) {
	var s seen
	for instance := range uint64(5 * seenSenders) {
		s.first(codec.NewID(instance, 1))
		s.first(codec.NewID(0, instance)) // one that is always there
	}
	if n := len(s.senders.young) + len(s.senders.old); n > 2*seenSenders {
		t.Errorf("%d senders are remembered", n)
	}
	if s.first(codec.NewID(0, 5*seenSenders-1)) {
		t.Error("an active sender was forgotten because of the others")
	}
	own, _ := s.senders.get(0, seenSenders)
	if n := len(own.young) + len(own.old); n > 2*seenMessages {
		t.Errorf("%d messages of a sender are remembered", n)
	}
}
