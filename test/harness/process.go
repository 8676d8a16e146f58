package harness

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a process may take for what should come at once.
const patience = 60 * time.Second

// Process is a node that runs as a process of its own: a parley agent on
// loopback, with a control socket that no other agent shares.
type Process struct {
	Name string

	t     testing.TB
	bin   string
	dir   string // for the socket and the ready file
	cmd   *exec.Cmd
	out   *Log
	addr  string
	ended chan struct{}
	code  int // read after ended
}

// binary is what Build has built. Main removes it.
var binary struct {
	sync.Mutex
	dir, path string
}

// Build builds the parley command, once for all tests of the test binary, and
// returns its path. The package's TestMain must call Main.
func Build(t testing.TB) string {
	t.Helper()
	binary.Lock()
	defer binary.Unlock()
	if binary.dir == "" {
		t.Fatal("Build without harness.Main in TestMain: nobody would remove what it builds")
	}
	if binary.path == "" {
		path := filepath.Join(binary.dir, "parley.exe") // the name that Windows wants does no harm elsewhere
		if out, err := exec.Command("go", "build", "-o", path, "github.com/parley-mesh/parley/cmd/node").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		binary.path = path
	}
	return binary.path
}

// run is another for each run of the test binary.
var run = sync.OnceValue(rand.Text)

// clusterOf is the name of the cluster of a test's processes.
func clusterOf(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	return run()[:8] + "-" + name[:min(len(name), 40)]
}

// Spawn starts "parley agent" on a free port of loopback, with the local profile
// and more flags, which come last and win, and waits until it is ready. All that
// one test spawns belong to a cluster of that test. When the test ends the process
// is killed, if it is still there, and what it wrote is shown if the test failed.
func Spawn(t testing.TB, name string, flags ...string) *Process {
	t.Helper()
	bin := Build(t)
	dir, err := os.MkdirTemp("", "parley") // not t.TempDir: the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &Process{Name: name, t: t, bin: bin, dir: dir, out: NewLog(t, name), ended: make(chan struct{})}
	ready := filepath.Join(dir, "ready")
	p.cmd = p.command(append([]string{"agent", "--name", name, "--cluster", clusterOf(t), "--profile", "local",
		"--bind", "127.0.0.1:0", "--ready-file", ready}, flags...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { // ends with the process, which the cleanup ends
		defer close(p.ended)
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(p.Kill)
	Eventually(t, patience, func() bool {
		select {
		case <-p.ended:
			t.Fatalf("%s has ended with exit code %d", name, p.code)
		default:
		}
		text, _ := os.ReadFile(ready)
		for line := range strings.Lines(string(text)) {
			if addr, ok := strings.CutPrefix(line, "addr="); ok {
				p.addr = strings.TrimSpace(addr)
			}
		}
		return p.addr != ""
	}, "%s is ready", name)
	return p
}

// command is a parley that finds this agent's socket, and nothing of what the
// tests' own surroundings say.
func (p *Process) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.bin, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PARLEY_") && !strings.HasPrefix(kv, "XDG_RUNTIME_DIR=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+p.dir)
	cmd.Dir = p.dir
	return cmd
}

// Run runs a verb against the agent, such as "send", "node2", "hello", to its
// end. A verb that hangs fails the test.
func (p *Process) Run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	var out, errs bytes.Buffer
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("%s: parley %q: %v", p.Name, args, err)
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case !late.Stop():
		p.t.Fatalf("%s: parley %q does not end\n%s%s", p.Name, args, &out, &errs)
	case err != nil && !errors.As(err, &exit):
		p.t.Fatalf("%s: parley %q: %v", p.Name, args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Must is Run for a verb that has to succeed. It returns standard output.
func (p *Process) Must(args ...string) string {
	p.t.Helper()
	out, errs, code := p.Run(args...)
	if code != 0 {
		p.t.Fatalf("%s: parley %q: exit code %d\n%s", p.Name, args, code, errs)
	}
	return out
}

// Status is how the agent sees the node called name: "alive", "left", "failed",
// or "unknown".
func (p *Process) Status(name string) string {
	p.t.Helper()
	for line := range strings.Lines(p.Must("members", "--json")) {
		var m struct{ Name, Status string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			p.t.Fatalf("%s: %v in %s", p.Name, err, line)
		}
		if m.Name == name {
			return cmp.Or(m.Status, "unknown")
		}
	}
	return "unknown"
}

// WaitStatus waits until the agent sees the node called name in that status.
func (p *Process) WaitStatus(name, status string) {
	p.t.Helper()
	Eventually(p.t, patience, func() bool { return p.Status(name) == status }, "%s sees %s %s", p.Name, name, status)
}

// WaitProcesses waits until each of the processes sees all of them alive.
func WaitProcesses(t testing.TB, processes ...*Process) {
	t.Helper()
	for _, p := range processes {
		for _, other := range processes {
			p.WaitStatus(other.Name, "alive")
		}
	}
}

// Addr is its gossip address, to join at.
func (p *Process) Addr() string { return p.addr }

// Output is what it has written up to now, the end of it if that was much.
func (p *Process) Output() string { return p.out.String() }

// Kill ends the process as a crash would, if it has not ended. It returns when it
// is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Stop asks the agent to leave the cluster and end, and returns its exit code.
// There is no such signal on Windows.
func (p *Process) Stop() int {
	p.t.Helper()
	p.signal(os.Interrupt)
	select {
	case <-p.ended:
		return p.code
	case <-time.After(patience):
		p.t.Fatalf("%s does not stop", p.Name)
		return -1
	}
}

func (p *Process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v: %v", p.Name, s, err)
	}
}

// Main runs the tests of a package, for its TestMain to exit with what it
// returns. After tests that passed it waits until leaks finds nothing more, and
// fails otherwise; memberlist's own goroutines are there for about two seconds
// after its shutdown.
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m, func() error { return goleak.Find() })) }
func Main(m *testing.M, leaks func() error) int {
	dir, err := os.MkdirTemp("", "parley-build")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary.dir = dir
	code := m.Run()
	if code != 0 {
		return code
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := leaks()
		if err == nil {
			return 0
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "goroutines are left over:", err)
			return 1
		}
	}
}
