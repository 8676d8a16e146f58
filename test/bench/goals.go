package main

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// goal is a figure to reach, as a ratio of two peers in the same rounds or as a
// figure of one.
type goal struct {
	peer  string
	test  string
	size  int
	what  func(sample) float64
	to    string // the peer it is compared with; "" for the figure itself
	limit float64
	most  bool   // the limit is the most it may be, and else the least
	unit  string // of a figure itself
}

var goals = []goal{
	{"sp", "oneway", 64, rate, "mangos", 30, false, ""},
	{"sp", "oneway", 64, rate, "nats", 5, false, ""},
	{"sp", "oneway", 64, rate, "zmq", 2, false, ""},
	{"sp", "oneway", 64, rate, "raw", 0.5, false, ""},
	{"sp", "oneway", 1 << 10, rate, "mangos", 6, false, ""},
	{"sp", "oneway", 1 << 10, rate, "nats", 3, false, ""},
	{"sp", "oneway", 1 << 10, rate, "zmq", 2, false, ""},
	{"sp", "oneway", 64 << 10, rate, "mangos", 2, false, ""},
	{"sp", "oneway", 64 << 10, rate, "nats", 4, false, ""},
	{"sp", "oneway", 64 << 10, rate, "raw", 0.9, false, ""},
	{"sp", "many", 64, rate, "mangos", 8, false, ""},
	{"sp", "many", 64, rate, "nats", 6, false, ""},
	{"sp", "many", 64, rate, "zmq", 1.2, false, ""},
	{"sp", "many", 64, rate, "raw", 0.8, false, ""},
	{"sp", "rtt-pinned", 64, p50, "raw", 1, true, ""},
	{"sp", "rtt-pinned", 64, p50, "nats", 0.5, true, ""},
	{"sp", "rtt", 64, p50, "raw", 1, true, ""},
	{"sp", "rtt", 64, p50, "nats", 0.5, true, ""},
	{"sp", "oneway", 64, allocs, "", 0, true, perMessage},
	{"sp", "many", 64, allocs, "", 0, true, perMessage},
	{"sp", "rtt", 64, allocs, "", 0, true, perMessage},
	{"unicast", "oneway", 64, rate, "", 5e6, false, "/s"},
	{"unicast", "oneway", 64, rate, "sp", 0.4, false, ""},
	{"unicast", "oneway", 1 << 10, rate, "sp", 0.7, false, ""},
	{"unicast", "oneway", 64 << 10, rate, "sp", 0.9, false, ""},
	{"unicast", "many", 64, rate, "sp", 0.6, false, ""},
	{"unicast", "many", 64, rate, "nats", 4, false, ""},
	{"unicast", "rtt-pinned", 64, p50, "sp", 1.15, true, ""},
	{"unicast", "rtt", 64, p50, "sp", 1.15, true, ""},
	{"unicast", "oneway", 64, allocs, "", 2, true, perMessage},
	{"unicast", "many", 64, allocs, "", 2, true, perMessage},
}

// perMessage is the unit of allocations here.
const perMessage = "allocations"

// noise is how many allocations of a message are those of the run itself.
const noise = 0.05

// measured is what was measured in each round.
func (b *bench) measured(g goal) []float64 {
	xs := b.values(g.key(g.peer), g.what)
	if g.to != "" {
		return ratios(xs, b.values(g.key(g.to), g.what))
	}
	if g.unit == perMessage {
		for i := range xs {
			xs[i] /= 1e6
		}
	}
	return measured(xs)
}

// goals shows those of which the test was made.
func (b *bench) goals(w io.Writer) {
	tested := slices.DeleteFunc(slices.Clone(goals), func(g goal) bool { return b.samples[g.key(g.peer)] == nil })
	if len(tested) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Goals\n\nOf the first two for unicast one is enough. × of a round trip is of its p50.\n")
	fmt.Fprint(w, "\n| | test | goal | measured | |\n|---|---|---:|---:|---|\n")
	for _, g := range tested {
		xs := b.measured(g)
		x := median(xs)
		sign, unit, met := "≥", g.unit, x >= g.limit
		if g.to != "" {
			unit = "× " + titles[g.to]
		}
		if g.most {
			sign, met = "≤", x <= g.limit
		}
		if g.unit == perMessage {
			met = x <= g.limit+noise
		}
		fmt.Fprintf(w, "| %s | %s, %s | %s %s %s | %s | %s |\n", titles[g.peer], g.test, bytesOf(g.size),
			sign, short(g.limit), unit, spread(xs), mark(x, met))
	}
}

func (g goal) key(peer string) key { return key{g.test, g.size, peer, 2} }

// mark tells whether a goal is met, and of what was not measured nothing.
func mark(x float64, met bool) string {
	switch {
	case math.IsNaN(x):
		return ""
	case met:
		return "met"
	}
	return "**short**"
}
