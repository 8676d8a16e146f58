package unicast

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parley-mesh/parley/codec"
)

func TestSeenRefusesDuplicates(t *testing.T) {
	var s seen
	for seq := range uint64(10 * seenWindow) {
		if !s.first(codec.NewID(1, seq)) {
			t.Fatalf("message %d was taken for a duplicate", seq)
		}
	}
	for back := range uint64(seenWindow) {
		if s.first(codec.NewID(1, 10*seenWindow-1-back)) {
			t.Fatalf("the message %d back was forgotten", back)
		}
	}
	if !s.first(codec.NewID(2, 10*seenWindow-1)) {
		t.Error("another sender's message was taken for a duplicate")
	}
	for seq := range uint64(seenLate) {
		if !s.first(codec.NewID(1, seq)) {
			t.Fatalf("message %d, which was forgotten, was taken for a duplicate", seq)
		}
	}
	for seq := range uint64(seenLate) {
		if s.first(codec.NewID(1, seq)) {
			t.Fatalf("message %d, which came again twice, was forgotten", seq)
		}
	}
}

// TestWindowIsASet compares windows with sets: whatever order numbers come in, one
// that was not seen is never refused, and one that was seen is never accepted
// while it is in the window.
func TestWindowIsASet(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var w window
		seen := make(map[uint64]bool)
		base := []uint64{0, 1, 63, 1 << 40, math.MaxUint64 - 3*seenWindow}[rnd.IntN(5)]
		var top uint64
		for range 5000 {
			seq := base + rnd.Uint64N(100)
			switch base += rnd.Uint64N(40); rnd.IntN(50) {
			case 0:
				seq -= min(seq, rnd.Uint64N(2*seenWindow))
			case 1:
				seq += min(math.MaxUint64-seq, rnd.Uint64N(seenWindow))
			case 2:
				seq += min(math.MaxUint64-seq, rnd.Uint64N(1<<rnd.IntN(40)))
			}
			first, late := w.first(seq)
			switch {
			case late && (seq >= top || top-seq < seenWindow):
				t.Fatalf("%d is late after %d", seq, top)
			case late:
			case first == seen[seq]:
				t.Fatalf("seed %d: %d after %d: first %v", seed, seq, top, first)
			}
			if !late {
				seen[seq] = true
				top = max(top, seq)
			}
		}
	}
}

// TestSeenIsConcurrent: of many that bring the same messages, one is the first.
func TestSeenIsConcurrent(t *testing.T) {
	const n = 3 * seenSenders
	var s seen
	var firsts [n]atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range n {
				if s.first(codec.NewID(uint64(i%40), uint64(i))) {
					firsts[i].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for i := range firsts {
		if k := firsts[i].Load(); k != 1 {
			t.Errorf("message %d was the first %d times", i, k)
		}
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
	for seq := range uint64(10 * seenLate) {
		s.first(codec.NewID(math.MaxUint64, math.MaxUint64-seq*seenWindow))
	}
	if n := len(s.late.young) + len(s.late.old); n < seenLate || n > 2*seenLate {
		t.Errorf("%d late messages are remembered", n)
	}
}

func BenchmarkSeen(b *testing.B) {
	var s seen
	var seq uint64
	b.ReportAllocs()
	for b.Loop() {
		seq++
		if !s.first(codec.NewID(1, seq)) {
			b.Fatal("a new message was taken for a duplicate")
		}
	}
}
