package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take for what should come soon.
const patience = 30 * time.Second

// process is a child that was started; see child.go for what it understands.
type process struct {
	role   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string // what it says; closed when it says no more
	stderr bytes.Buffer
	addr   string
}

// start runs command and waits until it is ready. cpu is where all of it has to run,
// or negative for anywhere.
func start(command []string, role string, t task, cpu int) (*process, error) {
	p := &process{role: role, lines: make(chan string, 16)}
	p.cmd = exec.Command(command[0], append(command[1:], childArgs(role, t)...)...)
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(p.cmd, cpu); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	p.addr, err = p.expect("ready", patience)
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// startOn starts cmd on one CPU: a new process inherits the CPUs of the thread that
// makes it, and the Go runtime in it sees one CPU.
func startOn(cmd *exec.Cmd, cpu int) error {
	if cpu < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// cpu is where a process in this role runs, and negative for anywhere.
func (p place) cpu(role string) int {
	if p == free {
		return -1
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return -1
	}
	first, last := -1, -1 // of those that this process may use; the first often has more interrupts
	for i := range 64 * len(set) {
		if set.IsSet(i) {
			last = i
			if first < 0 {
				first = i
			}
		}
	}
	if p == apart && role == "send" {
		return first
	}
	return last
}

// tell writes a command.
func (p *process) tell(command string) error {
	_, err := io.WriteString(p.in, command+"\n")
	return err
}

// expect waits for a line that begins with word and returns the rest of it.
func (p *process) expect(word string, d time.Duration) (string, error) {
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.cmd.Wait() // so that stderr is whole
			said, _, _ := strings.Cut(strings.TrimSpace(p.stderr.String()), "\n")
			return "", fmt.Errorf("%s ended: %s", p.role, said)
		}
		first, rest, _ := strings.Cut(line, " ")
		if first != word {
			return "", fmt.Errorf("%s: %s", p.role, line)
		}
		return rest, nil
	case <-time.After(d):
		return "", fmt.Errorf("%s: no %q within %v", p.role, word, d)
	}
}

// numbers are what follows word in the next line.
func (p *process) numbers(word string, n int, d time.Duration) ([]float64, error) {
	rest, err := p.expect(word, d)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(rest)
	if len(fields) != n {
		return nil, fmt.Errorf("%s: %s %s", p.role, word, rest)
	}
	xs := make([]float64, n)
	for i := range xs {
		if xs[i], err = strconv.ParseFloat(fields[i], 64); err != nil {
			return nil, fmt.Errorf("%s: %w", p.role, err)
		}
	}
	return xs, nil
}

// peak is the most memory that the process had resident, in MiB.
func (p *process) peak() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024
		}
	}
	return 0
}

// stop ends the process: by the end of its input, and if that does not help by force.
func (p *process) stop() {
	p.in.Close()
	force := time.AfterFunc(2*time.Second, func() { p.cmd.Process.Kill() })
	defer force.Stop()
	for range p.lines {
	}
	p.cmd.Wait()
}

// group is the processes of one measurement.
type group struct {
	task     task
	all      []*process
	receiver *process
	sender   *process
}

func startGroup(command []string, helped bool, t task, where place) (_ *group, err error) {
	g := &group{task: t}
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
	if helped {
		p, err := g.start(command, "help", where)
		if err != nil {
			return nil, err
		}
		g.task.helper = p.addr
	}
	if g.receiver, err = g.start(command, "receive", where); err != nil {
		return nil, err
	}
	g.task.receiver = g.receiver.addr
	g.sender, err = g.start(command, "send", where)
	return g, err
}

func (g *group) start(command []string, role string, where place) (*process, error) {
	p, err := start(command, role, g.task, where.cpu(role))
	if err == nil {
		g.all = append(g.all, p)
	}
	return p, err
}

func (g *group) stop() {
	for i := len(g.all) - 1; i >= 0; i-- {
		g.all[i].stop()
	}
}

// spent is CPU time in ns and allocations, negative when somebody cannot tell.
type spent struct{ cpu, mallocs float64 }

// usage is what all processes spent since they were started.
func (g *group) usage() (u spent, err error) {
	for _, p := range g.all {
		if err := p.tell("usage"); err != nil {
			return u, err
		}
		xs, err := p.numbers("usage", 2, patience)
		if err != nil {
			return u, err
		}
		u.cpu += xs[0]
		if xs[1] < 0 || u.mallocs < 0 {
			u.mallocs = -1
		} else {
			u.mallocs += xs[1]
		}
	}
	return u, nil
}

// outcome is what one command gave. The latencies are in ns.
type outcome struct{ count, ns, p50, p99 float64 }

func (g *group) run(command string, d time.Duration) (o outcome, err error) {
	if err := g.sender.tell(command); err != nil {
		return o, err
	}
	if g.task.kind == requests {
		xs, err := g.sender.numbers("done", 4, d+patience)
		if err != nil {
			return o, err
		}
		return outcome{xs[0], xs[1], xs[2], xs[3]}, nil
	}
	sent, err := g.sender.numbers("sent", 2, d+patience)
	if err != nil {
		return o, err
	}
	got, err := g.receiver.numbers("got", 2, patience)
	if err != nil {
		return o, err
	}
	if got[0] != sent[0] {
		return o, fmt.Errorf("%.0f messages sent, %.0f arrived", sent[0], got[0])
	}
	return outcome{count: got[0], ns: got[1] - sent[1]}, nil
}
