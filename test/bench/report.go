package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// titles are the peers' names in the tables.
var titles = map[string]string{
	"raw": "raw TCP", "raw-1": "raw TCP, one goroutine", "zmq": "libzmq", "nats": "NATS core", "grpc": "gRPC",
	"nng": "NNG", "mangos": "mangos, stock", "mangos-sp": "mangos on sp's transport", "memberlist": "memberlist SendReliable", "sp": "**sp**", "sp-poll": "**sp**, Poll 50 µs", "unicast": "**unicast**", "unicast-own": "**unicast**, bodies owned",
}

// values are what f finds in the samples of k, round by round.
func (b *bench) values(k key, f func(sample) float64) []float64 {
	var xs []float64
	for _, s := range b.samples[k] {
		xs = append(xs, f(s))
	}
	return xs
}

func rate(s sample) float64   { return s.rate }
func p50(s sample) float64    { return s.p50 }
func p99(s sample) float64    { return s.p99 }
func cpu(s sample) float64    { return s.cpu }
func allocs(s sample) float64 { return s.allocs }
func peak(s sample) float64   { return s.peak }

// spread is the median and, in parentheses, what it lies between.
func spread(xs []float64) string {
	xs = measured(xs)
	if len(xs) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", short(median(xs)), short(slices.Min(xs)), short(slices.Max(xs)))
}

// marks says how many rounds failed or were disturbed.
func marks(samples []sample) string {
	disturbed, bad := 0, 0
	for _, s := range samples {
		if s.err != nil {
			bad++
		} else if s.disturbed {
			disturbed++
		}
	}
	var m []string
	if disturbed > 0 {
		m = append(m, fmt.Sprintf("%d of %d", disturbed, len(samples)))
	}
	if bad > 0 {
		m = append(m, fmt.Sprintf("%d failed", bad))
	}
	return strings.Join(m, ", ")
}

// A column of a table: its head, and what it has for a measurement.
type column struct {
	head string
	cell func(k key) string
}

func (b *bench) table(w io.Writer, head string, name func(key) string, columns []column, keys []key) {
	fmt.Fprintf(w, "\n| %s |", head)
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.head)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---:|", len(columns)))
	for _, k := range keys {
		fmt.Fprintf(w, "| %s |", name(k))
		for _, c := range columns {
			fmt.Fprintf(w, " %s |", c.cell(k))
		}
		fmt.Fprintln(w)
	}
}

func (b *bench) spreadOf(head string, f func(sample) float64) column {
	return column{head, func(k key) string { return spread(b.values(k, f)) }}
}

func (b *bench) medianOf(head string, f func(sample) float64) column {
	return column{head, func(k key) string { return short(median(measured(b.values(k, f)))) }}
}

// ratioTo compares with another peer, or with another cluster, in the same rounds.
func (b *bench) ratioTo(head string, other func(key) key, f func(sample) float64) column {
	return column{head, func(k key) string { return short(median(ratios(b.values(k, f), b.values(other(k), f)))) }}
}

func (b *bench) marks() column {
	return column{"disturbed", func(k key) string { return marks(b.samples[k]) }}
}

func peerOf(name string) func(key) key {
	return func(k key) key { k.peer, k.nodes = name, 2; return k }
}

func (b *bench) report(w io.Writer) {
	b.head(w)
	for _, t := range tests {
		if !slices.Contains(b.tests, t.name) {
			continue
		}
		fmt.Fprintf(w, "\n## %s\n", t.title)
		if t.name == "cluster" {
			b.clusters(w)
			continue
		}
		main, more := p50, []column{b.medianOf("p99 µs", p99)}
		head := "p50 µs"
		if t.name == "many" {
			main, head = rate, "requests/s"
		}
		if t.kind == oneWay {
			main, head, more = rate, "messages/s", []column{{"MB/s", func(k key) string {
				return short(median(measured(b.values(k, rate))) * float64(k.size) / 1e6)
			}}}
		}
		columns := append([]column{b.spreadOf(head, main)}, more...)
		columns = append(columns, b.ratioTo("× raw", peerOf("raw"), main), b.ratioTo("× stock", peerOf("mangos"), main))
		if t.name != "first" {
			columns = append(columns, b.medianOf("CPU s/M", cpu), b.medianOf("allocs/M", allocs), b.medianOf("peak MiB", peak))
		}
		columns = append(columns, b.marks())
		sizes := b.sizes
		if t.name == "first" {
			sizes = []int{64}
		}
		for _, size := range sizes {
			fmt.Fprintf(w, "\n### %s\n", bytesOf(size))
			var keys []key
			for _, k := range b.plan() {
				if k.test == t.name && k.size == size {
					keys = append(keys, k)
				}
			}
			slices.SortStableFunc(keys, func(x, y key) int {
				return slices.Index(allPeers, x.peer) - slices.Index(allPeers, y.peer)
			})
			b.table(w, "peer", func(k key) string { return titles[k.peer] }, columns, keys)
		}
	}
	b.goals(w)
	fmt.Fprintf(w, "\nThe whole run took %v.\n", time.Since(b.began).Round(time.Second))
}

func (b *bench) clusters(w io.Writer) {
	for _, name := range clusterTests {
		i := slices.IndexFunc(tests, func(t test) bool { return t.name == name })
		columns := []column{b.spreadOf("p50 µs", p50), b.medianOf("p99 µs", p99)}
		main := p50
		if name != "rtt" {
			main = rate
			columns = []column{b.spreadOf("per second", rate)}
		}
		two := func(k key) key { k.nodes = 2; return k }
		columns = append(columns, b.ratioTo("× 2 nodes", two, main), b.marks())
		fmt.Fprintf(w, "\n### %s: %s\n", tests[i].title, bytesOf(64))
		var keys []key
		for _, nodes := range clusterSizes {
			keys = append(keys, key{"cluster-" + name, 64, "unicast", nodes})
		}
		b.table(w, "nodes", func(k key) string { return fmt.Sprint(k.nodes) }, columns, keys)
	}
}

// head describes the machine and the peers.
func (b *bench) head(w io.Writer) {
	fmt.Fprintf(w, "%s; %d CPUs (%s), Linux %s, %s.\n", b.began.UTC().Format("2006-01-02 15:04 UTC"),
		runtime.NumCPU(), cpuModel(), kernel(), runtime.Version())
	fmt.Fprintf(w, "%d rounds, %v for each measurement. Medians (and min–max) of the rounds; × are medians of\n"+
		"the ratios within each round, of latency where the first column is one (less is better) and\n"+
		"else of rate. CPU and allocations are per million messages or round trips, of all processes\n"+
		"together, and so is the memory. A measurement is disturbed when others took more than %.0f %% of\n"+
		"the machine's CPU time.\n\n", b.rounds, b.duration, disturbance*100)
	var versions []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			for _, path := range []string{"go.nanomsg.org/mangos/v3", "github.com/nats-io/nats-server/v2",
				"github.com/nats-io/nats.go", "google.golang.org/grpc", "github.com/hashicorp/memberlist"} {
				if d.Path == path {
					versions = append(versions, path[strings.Index(path, "/")+1:]+" "+d.Version)
				}
			}
		}
	}
	for _, p := range []string{"zmq", "nng"} {
		if v := b.versions[p]; v != "" {
			versions = append(versions, v)
		}
	}
	fmt.Fprintf(w, "Peers: %s.\n", strings.Join(versions, ", "))
	for _, p := range b.peers {
		if err := b.missing[p]; err != nil {
			fmt.Fprintf(w, "\n%s was not built: %v\n", titles[p], err)
		}
	}
}

func bytesOf(n int) string {
	if n >= 1024 && n%1024 == 0 {
		return fmt.Sprintf("%d KiB", n/1024)
	}
	return fmt.Sprintf("%d B", n)
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "?"
	}
	return string(u.Release[:max(0, bytes.IndexByte(u.Release[:], 0))])
}
