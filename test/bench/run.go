package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// test is one way to measure.
type test struct {
	name        string
	title       string
	kind        kind
	outstanding int
	place       place
}

var tests = []test{
	{"rtt-pinned", "Round trip, one request outstanding, all processes on one CPU", requests, 1, together},
	{"rtt-apart", "Round trip, one request outstanding, sender and receiver on a CPU each", requests, 1, apart},
	{"rtt", "Round trip, one request outstanding, CPUs free", requests, 1, free},
	{"many", fmt.Sprintf("Requests, %d outstanding", callers), requests, callers, free},
	{"oneway", "One-way messages", oneWay, 1, free},
	{"first", "First message to a peer: connect and one round trip", requests, 1, free},
	{"cluster", "unicast between two nodes of a larger cluster", requests, 1, free},
}

// place is where processes run. With the CPUs free, a lone round trip takes as long
// as on one CPU or as between two, as the system happens to place the two processes.
type place int

const (
	free     place = iota
	together       // on one CPU
	apart          // the sender on one, all others on another
)

// clusterTests are what is measured in a cluster of each size.
var clusterTests = []string{"rtt", "many", "oneway"}

var clusterSizes = []int{2, 3, 10, 50}

// firstCluster is the cluster in which unicast meets its peers one by one, and
// firstTimes how often the others connect.
const (
	firstCluster = 50
	firstTimes   = 100
)

// key names a measurement that is made once in each round.
type key struct {
	test  string
	size  int
	peer  string
	nodes int // 2, but for clusters
}

// sample is what one round gave; NaN is what it does not have.
type sample struct {
	rate      float64 // messages or round trips per second
	p50, p99  float64 // µs
	cpu       float64 // seconds per million messages, all processes
	allocs    float64 // per million messages, all processes
	peak      float64 // MiB, all processes
	disturbed bool
	err       error
}

func failed(err error) sample {
	nan := math.NaN()
	return sample{nan, nan, nan, nan, nan, nan, false, err}
}

// bench is one run of this program.
type bench struct {
	peers    []string
	tests    []string
	sizes    []int
	rounds   int
	duration time.Duration
	warmUp   time.Duration

	dir      string              // for what is built
	commands map[string][]string // to start a process of each peer
	missing  map[string]error    // peers that could not be built
	versions map[string]string
	samples  map[key][]sample
	began    time.Time
}

// plan lists what a round measures, peers side by side.
func (b *bench) plan() (keys []key) {
	for _, t := range tests {
		if !slices.Contains(b.tests, t.name) || t.place == apart && runtime.NumCPU() < 2 {
			continue
		}
		switch t.name {
		case "cluster":
			for _, name := range clusterTests {
				for _, nodes := range clusterSizes {
					if slices.Contains(b.peers, "unicast") {
						keys = append(keys, key{"cluster-" + name, 64, "unicast", nodes})
					}
				}
			}
		case "first":
			for _, p := range b.peers {
				nodes := 2
				if p == "unicast" {
					nodes = firstCluster
				}
				if worth(p, t, 64) {
					keys = append(keys, key{t.name, 64, p, nodes})
				}
			}
		default:
			for _, size := range b.sizes {
				for _, p := range b.peers {
					if worth(p, t, size) {
						keys = append(keys, key{t.name, size, p, 2})
					}
				}
			}
		}
	}
	return slices.DeleteFunc(keys, func(k key) bool { return b.missing[k.peer] != nil })
}

// worth tells whether a test says of a peer what no other says.
func worth(peer string, t test, size int) bool {
	many := t.name == "many"
	switch peer {
	case "raw-1": // as raw, and it cannot read while it writes much
		return many && size <= rawLarge
	case "mangos-sp", "unicast-own": // as mangos, as unicast
		return many || t.kind == oneWay
	case "sp-poll": // as sp
		return t.outstanding == 1 && t.kind == requests && t.name != "first" && size <= rawLarge
	case "memberlist": // each of its messages is a first one
		return t.name != "first"
	}
	return true
}

func (b *bench) run() {
	b.samples = make(map[key][]sample)
	keys := b.plan()
	for round := range b.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d, after %v\n", round+1, b.rounds, time.Since(b.began).Round(time.Second))
		for _, k := range b.shift(keys, round) {
			s := b.measure(k)
			if s.err != nil {
				fmt.Fprintf(os.Stderr, "%s, %s, %d B: %v\n", k.peer, k.test, k.size, s.err)
			}
			b.samples[k] = append(b.samples[k], s)
		}
	}
}

// shift lets another peer begin in each round, while the tests keep their order.
func (b *bench) shift(keys []key, round int) []key {
	shifted := make([]key, 0, len(keys))
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].test == keys[0].test && keys[n].size == keys[0].size {
			n++
		}
		first := round % n
		shifted = append(append(shifted, keys[first:n]...), keys[:first]...)
		keys = keys[n:]
	}
	return shifted
}

func (b *bench) measure(k key) sample {
	name := strings.TrimPrefix(k.test, "cluster-")
	i := slices.IndexFunc(tests, func(t test) bool { return t.name == name })
	t := tests[i]
	_, helped := ours()[k.peer].(helper)
	helped = helped && (k.peer == "nats" || k.nodes > 2)
	g, err := startGroup(b.commands[k.peer], helped,
		task{peer: k.peer, kind: t.kind, size: k.size, outstanding: t.outstanding, nodes: k.nodes}, t.place)
	if err != nil {
		return failed(err)
	}
	defer g.stop()

	command := func(d time.Duration) string { return fmt.Sprintf("go %d", d.Milliseconds()) }
	if t.name == "first" {
		command = func(time.Duration) string { return fmt.Sprintf("first %d", firstTimes) }
	} else if _, err := g.run(command(b.warmUp), b.warmUp); err != nil {
		return failed(err)
	}
	loadBefore := readLoad()
	before, err := g.usage()
	if err != nil {
		return failed(err)
	}
	o, err := g.run(command(b.duration), b.duration)
	if err != nil {
		return failed(err)
	}
	after, err := g.usage()
	if err != nil {
		return failed(err)
	}
	others := readLoad().others(loadBefore, time.Duration(after.cpu-before.cpu))

	s := sample{
		rate:      o.count / o.ns * 1e9,
		p50:       o.p50 / 1e3,
		p99:       o.p99 / 1e3,
		cpu:       (after.cpu - before.cpu) / 1e9 / o.count * 1e6,
		allocs:    math.NaN(),
		disturbed: others > disturbance,
	}
	if after.mallocs >= 0 {
		s.allocs = (after.mallocs - before.mallocs) / o.count * 1e6
	}
	for _, p := range g.all {
		s.peak += p.peak()
	}
	return s
}
