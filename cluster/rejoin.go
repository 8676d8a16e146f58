package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// What one round of rejoin may cost.
const (
	rejoinPicks  = 3 // failed members and seeds that are missing
	rejoinUrgent = 8 // addresses, while nobody else is alive
	expireEvery  = 10 * time.Second
)

// rejoin keeps the cluster together: memberlist never calls a dead node again,
// so two halves that were cut apart would stay apart, and a node whose seed was
// not up would stay alone. Its rounds come at rejoinMin after something was
// found missing, then less and less often up to rejoinMax, all with a jitter of
// a quarter. Where nearly all are there and only few are missing, most nodes
// sit a round out, so that about three nodes of a big cluster dial, not all.
//
// It also repairs differences between this node's list and others' (see
// comparison), finds that this process was stopped for a while (the others have
// given it up by then), and forgets the departed whose time is over. The end of
// n.ctx ends it.
func (n *Node) rejoin() {
	p := n.settings.profile
	tick := p.rejoinMin
	var (
		round    = rejoinRound{node: n, reported: make(map[netip.AddrPort]bool), silent: make(map[string]bool)}
		pause    = p.rejoinMin
		next     = time.Now().Add(jitter(p.rejoinMin))
		expire   = time.Now()
		sleeping = time.NewTimer(tick)
	)
	defer sleeping.Stop()
	for {
		began := time.Now()
		sleeping.Reset(tick)
		var diverged netip.AddrPort
		select {
		case <-sleeping.C:
		case <-n.rejoinNow:
			pause = p.rejoinMin
			if soon := time.Now().Add(jitter(pause)); soon.Before(next) {
				next = soon // not later, however often there is news
			}
		case diverged = <-n.comparison.diverged:
		case <-n.ctx.Done():
			return
		}
		now := time.Now()
		if late := max(now.Sub(began), now.Round(0).Sub(began.Round(0))) - tick; late > p.asleep {
			n.wakeUp(late)
			pause, next = p.rejoinMin, now
		} else if diverged.IsValid() {
			n.repair(diverged)
		}
		if now.Sub(expire) > expireEvery {
			expire = now
			n.mu.Lock()
			n.table.expire(now)
			n.mu.Unlock()
		}
		if now.Before(next) {
			continue
		}
		if missing := round.run(n.ctx); missing {
			pause = min(2*pause, p.rejoinMax)
		} else {
			pause = p.rejoinMin
		}
		next = time.Now().Add(jitter(pause))
	}
}

// jitter spreads d by a quarter both ways.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(rand.Int64N(int64(d)/2+1))
}

func (n *Node) wakeRejoin() {
	select {
	case n.rejoinNow <- struct{}{}:
	default:
	}
}

// wakeUp exchanges states with some members at once: they hold this node for
// dead, and learn from the exchange that it is not.
func (n *Node) wakeUp(late time.Duration) {
	n.stats.sleeps.Add(1)
	n.log.Warn("this process was stopped for a while; calling the others", "for", late.Round(time.Millisecond))
	var addrs []netip.AddrPort
	n.mu.RLock()
	n.table.each(func(r *record) bool {
		if r.key != n.key && r.member.Status != Left {
			addrs = append(addrs, r.addr)
		}
		return true
	})
	n.mu.RUnlock()
	n.attempt(n.ctx, pick(addrs, rejoinPicks))
}

// rejoinRound is the memory between rounds.
type rejoinRound struct {
	node     *Node
	reported map[netip.AddrPort]bool // addresses whose failure was logged
	silent   map[string]bool         // seeds whose failure to resolve was logged
}

// run tries some of what is missing and reports whether anything is.
func (r *rejoinRound) run(ctx context.Context) (missing bool) {
	n := r.node
	failed, alive, others := n.census()
	urgent := others == 0 || n.seeds.waiting()
	seeds, looked := r.seedAddresses(ctx, urgent, alive)
	for addr := range r.reported { // what is alive now may be reported again
		if alive[addr] {
			delete(r.reported, addr)
		}
	}
	total := len(failed) + len(seeds)
	if total == 0 {
		return urgent && looked
	}
	var chosen []netip.AddrPort
	switch {
	case urgent:
		chosen = append(pick(slices.Collect(maps.Keys(seeds)), rejoinUrgent), pick(slices.Collect(maps.Keys(failed)), rejoinPicks)...)
	case rand.Float64() < float64(rejoinPicks*total)/float64(others+1):
		chosen = pick(slices.AppendSeq(slices.Collect(maps.Keys(seeds)), maps.Keys(failed)), rejoinPicks)
	default:
		return true
	}
	for addr, err := range n.attempt(ctx, chosen) {
		s, isSeed := seeds[addr]
		attrs := []any{"addr", addr.String()}
		if isSeed {
			attrs = append(attrs, "seed", s.text)
		} else {
			attrs = append(attrs, "peer", failed[addr])
		}
		if err == nil {
			if isSeed {
				n.seeds.answered(s, time.Now().Add(exchangeRest))
			}
			if delete(r.reported, addr); isSeed || others == 0 {
				n.log.Info("rejoined", attrs...)
			}
			continue
		}
		if ctx.Err() == nil && !r.reported[addr] {
			if len(r.reported) > maxMemory {
				clear(r.reported)
			}
			r.reported[addr] = true
			n.log.Info("cannot reach a node; trying on", append(attrs, "err", err)...)
		}
	}
	return true
}

const maxMemory = 1024

// census returns the last addresses of failed members with their names, those
// of live ones, and how many others are alive.
func (n *Node) census() (failed map[netip.AddrPort]string, alive map[netip.AddrPort]bool, others int) {
	failed, alive = make(map[netip.AddrPort]string), make(map[netip.AddrPort]bool)
	n.mu.RLock()
	defer n.mu.RUnlock()
	n.table.each(func(r *record) bool {
		if r.alive() {
			alive[r.addr] = true
			if r.key != n.key {
				others++
			}
		}
		return true
	})
	n.table.each(func(r *record) bool {
		if r.member.Status == Failed && !alive[r.addr] {
			failed[r.addr] = r.member.Name
		}
		return true
	})
	return failed, alive, others
}

// seedAddresses resolves the seeds that are due and returns the addresses that
// are no live members. looked says that any was due.
func (r *rejoinRound) seedAddresses(ctx context.Context, urgent bool, alive map[netip.AddrPort]bool) (missing map[netip.AddrPort]seed, looked bool) {
	n := r.node
	now := time.Now()
	due := n.seeds.due(urgent, now, n.settings.profile.recheck)
	type answer struct {
		addrs []netip.AddrPort
		err   error
	}
	answers := make([]answer, len(due))
	var wg sync.WaitGroup
	for i, s := range due {
		wg.Go(func() {
			addrs, err := s.addresses(ctx, n.settings.hooks.lookup)
			if err == nil {
				addrs, err = n.reachable(addrs)
			}
			answers[i] = answer{addrs, err}
		})
	}
	wg.Wait()
	missing = make(map[netip.AddrPort]seed)
	for i, s := range due {
		if err := answers[i].err; err != nil {
			if !errors.Is(err, ErrSelf) && !r.silent[s.text] && ctx.Err() == nil {
				r.silent[s.text] = true
				n.log.Info("cannot use a seed; trying on", "seed", s.text, "err", err)
			}
			continue
		}
		delete(r.silent, s.text)
		for _, addr := range answers[i].addrs {
			if alive[addr] {
				n.seeds.found(s, now.Add(n.settings.profile.recheck))
			} else {
				missing[addr] = s
			}
		}
	}
	return missing, len(due) > 0
}

// attempt exchanges states with addrs, all at once.
func (n *Node) attempt(ctx context.Context, addrs []netip.AddrPort) map[netip.AddrPort]error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	results := make(map[netip.AddrPort]error, len(addrs))
	for _, addr := range addrs {
		n.stats.rejoinAttempts.Add(1)
		wg.Go(func() {
			limit := n.settings.profile.retryDial
			ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
			defer cancel()
			err := n.exchange(ctx, addr)
			if err == nil {
				n.stats.rejoinSuccesses.Add(1)
			}
			mu.Lock()
			results[addr] = err
			mu.Unlock()
		})
	}
	wg.Wait()
	return results
}

// pick returns up to most of addrs, chosen at random.
func pick(addrs []netip.AddrPort, most int) []netip.AddrPort {
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs[:min(most, len(addrs))]
}
