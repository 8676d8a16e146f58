package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// seed is an address given by a person; it is resolved each time it is used.
type seed struct {
	text string
	hostPort
}

// parseSeed takes host:port, host, a DNS name, IPv6 with and without brackets.
func parseSeed(text string) (seed, error) {
	h, err := parseHostPort(text)
	if err != nil {
		return seed{}, err
	}
	if h.port < 0 {
		h.port = DefaultPort
	}
	reason := ""
	switch {
	case h.host == "":
		reason = "has no host"
	case h.port == 0:
		reason = "has port 0, where nobody listens"
	case h.ip.IsValid():
		reason = hostFault(h.ip)
	}
	if reason != "" {
		return seed{}, &AddressError{Addr: text, Reason: reason}
	}
	return seed{text: text, hostPort: h}, nil
}

// parseSeeds leaves out repetitions. Errors are *AddressError, but for too many.
func parseSeeds(texts []string) ([]seed, error) {
	if len(texts) > maxSeeds {
		return nil, fmt.Errorf("%d seeds are too many, the limit is %d", len(texts), maxSeeds)
	}
	var seeds []seed
	seen := make(map[string]bool)
	for _, text := range texts {
		s, err := parseSeed(text)
		if err != nil {
			return nil, err
		}
		if !seen[s.text] {
			seen[s.text] = true
			seeds = append(seeds, s)
		}
	}
	return seeds, nil
}

// addresses resolves the seed, to no more than maxSeedAddresses.
func (s seed) addresses(ctx context.Context, lookup lookupFunc) ([]netip.AddrPort, error) {
	ips, err := s.resolve(ctx, lookup)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, ip := range ips[:min(len(ips), maxSeedAddresses)] {
		out = append(out, netip.AddrPortFrom(ip, uint16(s.port)))
	}
	return out, nil
}

// maxSeedAddresses bounds what one DNS name stands for.
const maxSeedAddresses = 32

// seedBook remembers seeds for the background: those of the configuration, and
// those that have let this node in.
type seedBook struct {
	mu      sync.Mutex
	seeds   []*knownSeed
	answers bool // one of the configured ones, or one of Join's, has answered
}

type knownSeed struct {
	seed
	rest time.Time // not needed before, unless nobody else is alive
}

func newSeedBook(seeds []seed) *seedBook {
	b := &seedBook{}
	for _, s := range seeds {
		b.seeds = append(b.seeds, &knownSeed{seed: s})
	}
	b.answers = len(seeds) == 0
	return b
}

// answered notes that s let this node in. When the book is full, s is not kept.
func (b *seedBook) answered(s seed, rest time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers = true
	for _, k := range b.seeds {
		if k.text == s.text {
			k.rest = rest
			return
		}
	}
	if len(b.seeds) < 2*maxSeeds {
		b.seeds = append(b.seeds, &knownSeed{seed: s, rest: rest})
	}
}

// found notes that a live member has the address of s, and that s needs no look
// before rest is over.
func (b *seedBook) found(s seed, rest time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers = true
	for _, k := range b.seeds {
		if k.text == s.text {
			k.rest = rest
		}
	}
}

// due returns the seeds to look at: all when it is urgent, else those whose
// rest is over; these rest again for a while.
func (b *seedBook) due(urgent bool, now time.Time, rest time.Duration) []seed {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []seed
	for _, k := range b.seeds {
		if urgent || now.After(k.rest) {
			out = append(out, k.seed)
			k.rest = now.Add(rest)
		}
	}
	return out
}

// waiting reports whether no seed at all has answered yet.
func (b *seedBook) waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.answers
}
