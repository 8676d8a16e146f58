package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A child is a process that sends, receives or helps. It says "ready ADDR", and
// then does what it reads line by line until the end of its input:
//
//	usage     says "usage CPU-NS ALLOCATIONS", since its start
//	go MS     sends for so long; says "done COUNT NS P50-NS P99-NS" of requests, and
//	          "sent COUNT START-NS" of one-way messages, for which the receiver says
//	          "got COUNT END-NS" when all have come
//	first N   makes up to N first round trips; says what go says
//	error …   what it says instead when it cannot go on
//
// The peers in C (c/bench.h) speak the same.

// childArgs is how a task is written for a process, in the same order for C.
func childArgs(role string, t task) []string {
	return []string{role, t.peer, string(t.kind), strconv.Itoa(t.size), strconv.Itoa(t.outstanding),
		strconv.Itoa(t.nodes), t.helper, t.receiver}
}

func child(args []string) error {
	t := task{peer: args[1], kind: kind(args[2]), helper: args[6], receiver: args[7]}
	for i, field := range []*int{&t.size, &t.outstanding, &t.nodes} {
		n, err := strconv.Atoi(args[3+i])
		if err != nil {
			return err
		}
		*field = n
	}
	p, known := ours()[t.peer]
	if !known {
		return fmt.Errorf("unknown peer %q", t.peer)
	}

	var addr string
	var err error
	var to sender
	switch role := args[0]; role {
	case "help":
		addr, err = p.(helper).help(t)
	case "receive":
		addr, err = p.receive(t, &sink{done: func(count uint64) { say("got %d %d", count, monotonic()) }})
	case "send":
		to, err = p.connect(t)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		return err
	}
	say("ready %s", addr)

	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, number, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.Atoi(number)
		switch {
		case command == "usage":
			cpu, mallocs := usage()
			say("usage %d %d", cpu, mallocs)
			continue
		case command == "first":
			err = first(p, to, t, n)
		case t.kind == oneWay:
			err = sendOneWay(to, t.size, time.Duration(n)*time.Millisecond)
		default:
			err = sendRequests(to, t, time.Duration(n)*time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// sendOneWay sends for the given time.
func sendOneWay(to sender, size int, d time.Duration) error {
	body := make([]byte, size)
	var stop atomic.Bool
	time.AfterFunc(d, func() { stop.Store(true) })
	count, start := uint64(0), monotonic()
	for !stop.Load() {
		if err := to.push(body); err != nil {
			return err
		}
		count++
	}
	count++
	if err := to.push(lastBody(size, count)); err != nil {
		return err
	}
	if err := to.flush(); err != nil {
		return err
	}
	say("sent %d %d", count, start)
	return nil
}

// sampled is which of the round trips are timed when there are many at once: two
// readings of the clock would be a part of what the fastest cost.
const sampled = 8

// sendRequests makes round trips for the given time.
func sendRequests(to sender, t task, d time.Duration) error {
	var stop atomic.Bool
	time.AfterFunc(d, func() { stop.Store(true) })
	if p, ok := to.(pipeliner); ok {
		start := time.Now()
		count, samples, err := p.pipeline(make([]byte, t.size), t.outstanding, stop.Load)
		if err != nil {
			return err
		}
		sayDone(count, time.Since(start), samples)
		return nil
	}

	every := 1
	if t.outstanding > 1 {
		every = sampled
	}
	calls := make([]roundTrip, t.outstanding)
	for i := range calls {
		call, err := to.caller()
		if err != nil {
			return err
		}
		calls[i] = call
	}
	counts := make([]int, t.outstanding)
	samples := make([][]uint32, t.outstanding)
	errs := make([]error, t.outstanding)
	start := time.Now()
	work := func(i int) {
		body := make([]byte, t.size)
		mine := make([]uint32, 0, 1<<14)
		n := 0
		for !stop.Load() {
			var begin time.Time
			if n%every == 0 {
				begin = time.Now()
			}
			if err := ask(calls[i], body); err != nil {
				errs[i] = err
				break
			}
			if n%every == 0 {
				mine = append(mine, uint32(min(time.Since(begin), 4*time.Second)))
			}
			n++
		}
		counts[i], samples[i] = n, mine
	}
	if t.outstanding == 1 {
		work(0)
	} else {
		var all sync.WaitGroup
		for i := range calls {
			all.Go(func() { work(i) })
		}
		all.Wait()
	}
	elapsed := time.Since(start)
	count := 0
	for i := range counts {
		count += counts[i]
		if errs[i] != nil {
			return errs[i]
		}
	}
	sayDone(count, elapsed, slices.Concat(samples...))
	return nil
}

// first makes the first round trip to a peer, again and again.
func first(p peer, to sender, t task, n int) error {
	samples := make([]uint32, 0, n)
	body := make([]byte, t.size)
	start := time.Now()
	for range n {
		begin := time.Now()
		if m, ok := to.(meeter); ok {
			reply, more, err := m.meet(body)
			if !more {
				break
			}
			if err := check(reply, t.size, err); err != nil {
				return err
			}
			samples = append(samples, uint32(time.Since(begin)))
			continue
		}
		s, err := p.connect(t)
		if err != nil {
			return err
		}
		call, err := s.caller()
		if err != nil {
			return err
		}
		if err := ask(call, body); err != nil {
			return err
		}
		samples = append(samples, uint32(time.Since(begin)))
		s.close()
	}
	sayDone(len(samples), time.Since(start), samples)
	return nil
}

// ask makes a round trip.
func ask(call roundTrip, body []byte) error {
	reply, err := call(body)
	return check(reply, len(body), err)
}

// check proves that a reply is what was asked for.
func check(reply []byte, size int, err error) error {
	if err == nil && (len(reply) != size || reply[0] != 0) {
		err = fmt.Errorf("the reply has %d bytes and not %d", len(reply), size)
	}
	return err
}

func sayDone(count int, elapsed time.Duration, samples []uint32) {
	slices.Sort(samples)
	say("done %d %d %d %d", count, elapsed.Nanoseconds(), percentile(samples, 50), percentile(samples, 99))
}

// usage is the CPU time of this process in ns, and its allocations.
func usage() (cpu int64, mallocs uint64) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(err) // it cannot fail with this argument
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return r.Utime.Nano() + r.Stime.Nano(), m.Mallocs
}

// monotonic is the machine's clock, the same for all processes.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // it cannot fail with this argument
	}
	return t.Nano()
}
