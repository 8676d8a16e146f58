package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// disturbance is the share of the machine's CPU time that others may take before a
// measurement is marked.
const disturbance = 0.10

// load is a moment of the machine: how much its CPUs have worked, and when.
type load struct {
	busy time.Duration // all CPUs; without interrupts, most of which are our own packets
	self time.Duration // this process
	at   time.Time
}

func readLoad() load {
	l := load{at: time.Now()}
	var cpu string
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if stat, err := os.Open("/proc/stat"); err == nil {
		fmt.Fscan(stat, &cpu, &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal)
		stat.Close()
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	l.busy = time.Duration(user+nice+system+steal) * tick
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		l.self = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return l
}

// others is the share of the machine that neither this process nor children, who
// spent so much, took from before to l.
func (l load) others(before load, children time.Duration) float64 {
	ours := children + l.self - before.self
	return float64(l.busy-before.busy-ours) / float64(l.at.Sub(before.at)) / float64(runtime.NumCPU())
}
