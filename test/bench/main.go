// Command bench measures Parley beside others: stock mangos, NATS, gRPC, libzmq, NNG,
// memberlist, and TCP with nothing on top as the limit. It prints Markdown.
//
// Sender and receiver are separate processes on this machine's loopback. All peers
// take turns within each round, so that what disturbs the machine disturbs all, and
// ratios are taken within a round. README.md says how to run it and docs/benchmarks.md
// what it measures. It needs Linux; the peers in C need a compiler and their headers.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// allPeers in the order of the tables.
var allPeers = []string{"raw", "raw-1", "zmq", "nats", "grpc", "nng", "mangos", "mangos-sp", "memberlist", "sp", "sp-poll", "unicast", "unicast-own"}

func main() {
	if len(os.Args) == 9 && !strings.HasPrefix(os.Args[1], "-") { // a child; see childArgs
		if err := child(os.Args[1:]); err != nil {
			say("error %v", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{began: time.Now(), warmUp: 60 * time.Millisecond}
	var names []string
	for _, t := range tests {
		names = append(names, t.name)
	}
	flag.IntVar(&b.rounds, "rounds", 5, "how often each measurement is made")
	flag.DurationVar(&b.duration, "duration", 450*time.Millisecond, "of one measurement")
	peers := flag.String("peers", strings.Join(allPeers, ","), "which peers")
	which := flag.String("tests", strings.Join(names, ","), "which tests")
	sizes := flag.String("sizes", "64,1024,65536", "of messages in bytes")
	flag.Parse()

	err := func() (err error) {
		if b.rounds < 1 || b.duration < 10*time.Millisecond || flag.NArg() > 0 {
			return fmt.Errorf("at least one round of 10ms, and no arguments")
		}
		if b.peers, err = choose(*peers, allPeers); err != nil {
			return err
		}
		if b.tests, err = choose(*which, names); err != nil {
			return err
		}
		for s := range strings.SplitSeq(*sizes, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 16 || n > 1<<20 {
				return fmt.Errorf("size %q is not a number from 16 to 1048576", s)
			}
			b.sizes = append(b.sizes, n)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := b.build(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	defer os.RemoveAll(b.dir)
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupt
		os.RemoveAll(b.dir)
		os.Exit(1) // the children end with their input
	}()
	b.run()
	b.report(os.Stdout)
}

// choose returns those of all that list names.
func choose(list string, all []string) ([]string, error) {
	chosen := strings.Split(list, ",")
	for _, c := range chosen {
		if !slices.Contains(all, c) {
			return nil, fmt.Errorf("%q is none of %s", c, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(a string) bool { return !slices.Contains(chosen, a) }), nil
}

// build finds the command of each peer.
func (b *bench) build() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	b.commands, b.missing, b.versions = map[string][]string{}, map[string]error{}, map[string]string{}
	for _, p := range b.peers {
		b.commands[p] = []string{self}
		if native[p] == "" {
			continue
		}
		path, version, err := buildNative(p, b.dir)
		if err != nil {
			b.missing[p] = err
		}
		b.commands[p], b.versions[p] = []string{path}, version
	}
	return nil
}
