package test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/test/harness"
	"github.com/parley-mesh/parley/unicast"
)

// Three nodes talk, to all and to node4, while node4 crashes, leaves and comes
// back under load. Whatever a caller was told must agree with what the handlers
// of every life of node4 have seen.
func TestPromisesWhileANodeComesAndGoes(t *testing.T) {
	nodes := harness.Start(t, 4, harness.Options{})
	senders, lives := nodes[:3], nodes[3:]

	type sent struct {
		body    string // unique
		err     error
		receipt broadcast.Receipt
	}
	var mu sync.Mutex
	var all, direct []sent
	stop := make(chan struct{})
	var talk sync.WaitGroup
	const most = 100_000 // of each kind and sender; the churn is over long before
	for _, n := range senders {
		talk.Go(func() {
			for i := range most {
				body := fmt.Sprintf("%s to all %d", n.Name, i)
				receipt, err := n.Cast.Reliable(within(t), "all", []byte(body))
				mu.Lock()
				all = append(all, sent{body, err, receipt})
				mu.Unlock()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		talk.Go(func() {
			for i := range most {
				body := fmt.Sprintf("%s to node4 %d", n.Name, i)
				err := n.Mail.Send(within(t), "node4", "direct", []byte(body))
				mu.Lock()
				direct = append(direct, sent{body: body, err: err})
				mu.Unlock()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	life := lives[0]
	inUse := func() {
		harness.Eventually(t, time.Minute, func() bool { return len(life.Mails()) >= 50 && len(life.Casts()) >= 50 },
			"life %d of node4 gets messages of both kinds", len(lives))
	}
	for i := range 4 {
		inUse()
		if i%2 == 0 {
			life.Kill()
		} else {
			life.Leave()
		}
		life = life.Restart()
		lives = append(lives, life)
		harness.WaitConverged(t, append(slices.Clone(senders), life)...)
	}
	inUse()
	close(stop)
	talk.Wait()

	// What the handlers saw: how often each body, by node, all lives together.
	casts, mails := make(map[string]map[string]int), make(map[string]int)
	for _, n := range append(slices.Clone(senders), lives...) {
		if casts[n.Name] == nil {
			casts[n.Name] = make(map[string]int)
		}
		for _, m := range n.Casts() {
			if casts[n.Name][string(m.Body)]++; m.From == n.Name || string(m.Body[:5]) != m.From {
				t.Errorf("%s got %q from %s", n.Name, m.Body, m.From)
			}
		}
		for _, m := range n.Mails() {
			if mails[string(m.Body)]++; n.Name != "node4" || string(m.Body[:5]) != m.From {
				t.Errorf("%s got %q from %s", n.Name, m.Body, m.From)
			}
		}
	}
	handled := 0
	for _, s := range all {
		var partial *broadcast.PartialError
		switch {
		case s.err != nil && !errors.As(s.err, &partial):
			t.Errorf("%q: %v", s.body, s.err)
		case s.err != nil && !slices.Equal(partial.Names(), []string{"node4"}):
			t.Errorf("%q failed on others than node4: %v", s.body, s.err)
		}
		for name, seen := range casts {
			if seen[s.body] > 1 {
				t.Errorf("%s handled %q %d times", name, s.body, seen[s.body])
			}
			if slices.Contains(s.receipt.Handled, name) && seen[s.body] != 1 {
				t.Errorf("the receipt of %q names %s, which has not seen it", s.body, name)
			}
		}
		if slices.Contains(s.receipt.Handled, "node4") {
			handled++
		}
	}
	delivered, notDelivered, unknown := 0, 0, 0
	for _, s := range direct {
		seen := mails[s.body]
		var u *unicast.Error
		switch {
		case seen > 1:
			t.Errorf("%q was handled %d times", s.body, seen)
		case s.err == nil:
			if delivered++; seen != 1 {
				t.Errorf("%q was acknowledged and not handled", s.body)
			}
		case !errors.As(s.err, &u):
			t.Errorf("%q: %v", s.body, s.err)
		case u.Outcome == unicast.NotDelivered:
			if notDelivered++; seen != 0 {
				t.Errorf("%q was handled, its sender told: %v", s.body, s.err)
			}
		default:
			unknown++
		}
	}
	t.Logf("%d broadcasts, %d of them handled by node4; to node4 alone %d handled, %d not delivered, %d unknown",
		len(all), handled, delivered, notDelivered, unknown)
	if handled == 0 || delivered == 0 {
		t.Error("nothing got through")
	}
}
