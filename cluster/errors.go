package cluster

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Errors to compare with errors.Is. What the methods return wraps them with
// what was tried, on whom, and what is known beside.
var (
	ErrUnknownNode = errors.New("unknown node")
	ErrLeft        = errors.New("node has left the cluster")
	ErrNoService   = errors.New("no such service")

	// ErrFailed has beside its text a method NodeFailed() bool that returns
	// true, for packages that do not import this one.
	ErrFailed error = failedError{}

	// ErrNameTaken ends a node when a newer one runs under its name.
	ErrNameTaken = errors.New("name taken by a newer node")

	// ErrKeyMismatch says that a seed is alive but refuses to talk, because
	// only one of the two has a key or the keys differ.
	ErrKeyMismatch = errors.New("does not share this node's gossip key")

	// ErrHungUp says that a seed took the connection and ended it without a
	// word: it may belong to another Config.Cluster, or be no node, or overloaded.
	ErrHungUp = errors.New("hung up: it belongs to another cluster, is no node at all, or is overloaded")

	// ErrRefused says that a seed answered but is no member that this node
	// accepts: its metadata is of another version, or MaxMembers is reached.
	ErrRefused = errors.New("answered, but this node refuses it as a member (its log says why)")

	// ErrSelf says that all seeds which answered are this node itself.
	ErrSelf = errors.New("is this node itself")

	// ErrUnreachableFrom says that this node advertises a loopback address, so
	// a seed on another host could never answer it.
	ErrUnreachableFrom = errors.New("cannot reach this node")

	// ErrGossipBusy says that the cluster's gossip budget is spent; see GossipBusyError.
	ErrGossipBusy = errors.New("gossip budget spent")

	// ErrAttached says that somebody consumes the gossip of this node already.
	ErrAttached = errors.New("gossip already has a consumer")

	// ErrEmpty says that there is nothing to send.
	ErrEmpty = errors.New("empty payload")

	// ErrClosed also matches net.ErrClosed.
	ErrClosed error = closedError{}
)

type closedError struct{}

func (closedError) Error() string        { return "node is closed" }
func (closedError) Is(target error) bool { return target == net.ErrClosed }

type failedError struct{}

func (failedError) Error() string    { return "node has failed" }
func (failedError) NodeFailed() bool { return true }

// ConfigError says which field of Config cannot be used and why. Start returns
// it before anything is started.
type ConfigError struct {
	Field string
	Err   error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("cluster: config: %s: %v", e.Field, e.Err) }
func (e *ConfigError) Unwrap() error { return e.Err }

// AddressError says that something is not written as an address.
type AddressError struct {
	Addr   string // as given
	Reason string
}

func (e *AddressError) Error() string { return fmt.Sprintf("address %q %s", e.Addr, e.Reason) }

// SeedError says why one seed did not let this node in.
type SeedError struct {
	Seed string // as given
	Err  error
}

func (e *SeedError) Error() string {
	for _, verb := range []error{ErrKeyMismatch, ErrHungUp, ErrSelf, ErrRefused, ErrUnreachableFrom} {
		if errors.Is(e.Err, verb) {
			return fmt.Sprintf("seed %s %v", e.Seed, e.Err)
		}
	}
	return fmt.Sprintf("seed %s: %v", e.Seed, e.Err)
}
func (e *SeedError) Unwrap() error { return e.Err }

// JoinError says why Join reached nobody, seed by seed.
type JoinError struct {
	Seeds []*SeedError
	Cause error // of the context when that ended first, or that no seeds were given
}

func (e *JoinError) Error() string {
	texts := make([]string, len(e.Seeds))
	for i, seed := range e.Seeds {
		texts[i] = seed.Error()
	}
	if e.Cause != nil {
		texts = append([]string{e.Cause.Error()}, texts...)
	}
	return "cluster: join: " + strings.Join(texts, "; ")
}

// Unwrap returns the cause and the seeds' errors.
func (e *JoinError) Unwrap() []error {
	var errs []error
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	for _, seed := range e.Seeds {
		errs = append(errs, seed)
	}
	return errs
}

// LookupError says why a node or its service cannot be had now. It wraps
// ErrUnknownNode, ErrLeft, ErrFailed or ErrNoService.
type LookupError struct {
	Node    string
	Service string    // empty when the node itself is at fault
	Since   time.Time // ErrLeft, ErrFailed: since when, by the local clock
	Similar []string  // ErrUnknownNode: nodes alive under a similar name, the nearest first
	Offers  []string  // ErrNoService: what the node offers instead, sorted
	Err     error
}

func (e *LookupError) Error() string { return "cluster: lookup " + e.Node + ": " + e.Reason() }
func (e *LookupError) Unwrap() error { return e.Err }

// Reason is the text of Error without what was tried, such as "unknown node
// (did you mean node2?)", for those who say that themselves.
func (e *LookupError) Reason() string {
	switch {
	case !e.Since.IsZero():
		ago := time.Since(e.Since)
		if ago >= time.Second {
			ago = ago.Round(time.Second)
		} else {
			ago = ago.Round(time.Millisecond)
		}
		return fmt.Sprintf("%v (%v ago, at %s)", e.Err, ago, e.Since.Format(time.TimeOnly))
	case len(e.Similar) > 0:
		return fmt.Sprintf("%v (did you mean %s?)", e.Err, strings.Join(e.Similar, " or "))
	case e.Service != "" && len(e.Offers) > 0:
		return fmt.Sprintf("%v: %s (it offers %s)", e.Err, e.Service, strings.Join(e.Offers, ", "))
	case e.Service != "":
		return fmt.Sprintf("%v: %s (it offers none)", e.Err, e.Service)
	}
	return e.Err.Error()
}

// GossipBusyError says how much gossip the cluster can carry. It wraps ErrGossipBusy.
type GossipBusyError struct {
	Size       int           // of the payload refused, bytes
	Rate       float64       // messages of that size a second, for all nodes together
	Members    int           // on which Rate depends
	RetryAfter time.Duration // when there will be room, if nobody else uses it
}

func (e *GossipBusyError) Error() string {
	return fmt.Sprintf("cluster: gossip: %v: %d members can share %.1f messages of %d bytes a second, all together; try again in %v",
		ErrGossipBusy, e.Members, e.Rate, e.Size, e.RetryAfter.Round(10*time.Millisecond))
}
func (e *GossipBusyError) Unwrap() error { return ErrGossipBusy }

// similar returns up to three of names that a typist could have meant by name,
// the nearest first.
func similar(name string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	most := min(2, len(name)/2)
	var found []candidate
	for _, other := range names {
		if d := editDistance(strings.ToLower(name), strings.ToLower(other), most); d <= most {
			found = append(found, candidate{other, d})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, c := range found[:min(3, len(found))] {
		out = append(out, c.name)
	}
	return out
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours between a and b; a result over most only says "more than most".
func editDistance(a, b string, most int) int {
	if d := len(a) - len(b); d > most || -d > most {
		return most + 1
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
