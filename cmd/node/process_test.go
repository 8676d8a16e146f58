//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds how long a test waits for what should come at once, on a
// machine that has other things to do.
const patience = 60 * time.Second

// playMain makes the test binary behave as parley.
const playMain = "PARLEY_TEST_PLAY_MAIN"

// The processes of these tests are this binary itself, so they have the race
// detector when the tests have it.
func TestMain(m *testing.M) {
	if os.Getenv(playMain) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// host is a machine of its own as far as the control sockets go.
type host struct {
	t   *testing.T
	dir string // short, for the sockets
	env []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "pn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: dir}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PARLEY_") && !strings.HasPrefix(kv, "XDG_RUNTIME_DIR=") {
			h.env = append(h.env, kv)
		}
	}
	// With the race detector each process would sleep a second before it ends.
	h.env = append(h.env, "GORACE="+strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	// A cluster of its own too: ports are used again, by other tests as well.
	h.env = append(h.env, playMain+"=1", "XDG_RUNTIME_DIR="+dir, "PARLEY_PROFILE=local", "PARLEY_CLUSTER="+filepath.Base(dir))
	return h
}

// safeBuffer may be written and read at the same time.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// process is a parley that runs.
type process struct {
	t           *testing.T
	name        string
	cmd         *exec.Cmd
	out, errOut safeBuffer
	done        chan struct{}
	code        int
}

// start starts parley and does not wait for it.
func (h *host) start(stdin string, args ...string) *process {
	h.t.Helper()
	return h.launch(stdin, nil, args...)
}

// startWithOutput is start with standard output elsewhere.
func (h *host) startWithOutput(out *os.File, args ...string) *process {
	h.t.Helper()
	return h.launch("", out, args...)
}

func (h *host) launch(stdin string, out *os.File, args ...string) *process {
	h.t.Helper()
	p := &process{t: h.t, name: strings.Join(args, " "), done: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = h.env
	p.cmd.Dir = h.dir
	p.cmd.Stdin = strings.NewReader(stdin)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errOut
	if out != nil {
		p.cmd.Stdout = out
	}
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { // ended by the process, which the cleanup ends
		defer close(p.done)
		err := p.cmd.Wait()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			p.code = exit.ExitCode()
		case err != nil:
			p.code = -1
		}
	}()
	h.t.Cleanup(func() {
		p.kill()
		if long := args[0] == "agent" || args[0] == "listen"; long && h.t.Failed() {
			h.t.Logf("parley %s\nexit code %d\nstdout:\n%s\nstderr:\n%s", p.name, p.code, p.out.String(), p.errOut.String())
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// kill ends the process without a warning, if it has not ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("parley %s has not ended", p.name)
	}
	return p.code
}

// says waits until the process has written text to standard error.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, "parley "+p.name+" says "+text, func() bool { return strings.Contains(p.errOut.String(), text) })
}

// prints waits until the process has written text to standard output.
func (p *process) prints(text string) {
	p.t.Helper()
	eventually(p.t, "parley "+p.name+" prints "+text, func() bool { return strings.Contains(p.out.String(), text) })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// result of a verb.
type result struct {
	out, err string
	code     int
}

// do runs a verb to its end.
func (h *host) do(args ...string) result { h.t.Helper(); return h.feed("", args...) }

// feed is do with something on standard input.
func (h *host) feed(stdin string, args ...string) result {
	h.t.Helper()
	p := h.start(stdin, args...)
	code := p.wait()
	return result{p.out.String(), p.errOut.String(), code}
}

// must is do for a verb that has to succeed; it returns standard output.
func (h *host) must(args ...string) string {
	h.t.Helper()
	r := h.do(args...)
	if r.code != 0 {
		h.t.Fatalf("parley %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// fails runs a verb that has to fail, with that exit code and those words in the
// one line that it writes.
func (h *host) fails(code int, words []string, args ...string) {
	h.t.Helper()
	r := h.do(args...)
	h.check(r, code, words, args...)
}

func (h *host) check(r result, code int, words []string, args ...string) {
	h.t.Helper()
	what := "parley " + strings.Join(args, " ")
	if r.code != code {
		h.t.Errorf("%s: exit code %d, want %d; it says %s", what, r.code, code, r.err)
	}
	if r.out != "" {
		h.t.Errorf("%s: standard output has %q", what, r.out)
	}
	_, last, _ := strings.Cut(r.err, "parley: ")
	if strings.Count(last, "\n") != 1 {
		h.t.Errorf("%s: not one line: %q", what, r.err)
	}
	for _, w := range words {
		if !strings.Contains(last, w) {
			h.t.Errorf("%s: %q is not in %q", what, w, last)
		}
	}
}

// node is an agent that is ready.
type node struct {
	*process
	name, addr, ready string
}

// agent starts an agent on a free port and waits until it is ready.
func (h *host) agent(name string, args ...string) *node {
	h.t.Helper()
	n := h.agentNotReady(name, args...)
	n.isReady()
	return n
}

func (h *host) agentNotReady(name string, args ...string) *node {
	h.t.Helper()
	n := &node{name: name, ready: filepath.Join(h.dir, name+".ready")}
	all := append([]string{"agent", "--name", name, "--ready-file", n.ready}, args...)
	if !strings.Contains(strings.Join(args, " "), "--bind") {
		all = append(all, "--bind", "127.0.0.1:0")
	}
	n.process = h.start("", all...)
	return n
}

func (n *node) isReady() {
	n.t.Helper()
	eventually(n.t, n.name+" is ready", func() bool {
		select {
		case <-n.done:
			n.t.Fatalf("the agent %s has ended", n.name)
		default:
		}
		b, err := os.ReadFile(n.ready)
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "addr="); ok {
				n.addr = strings.TrimSpace(v)
			}
		}
		return err == nil
	})
}

// pair is two agents that know each other.
func (h *host) pair() (one, two *node) {
	h.t.Helper()
	one = h.agent("node1")
	two = h.agent("node2", "--join", one.addr)
	return one, two
}

// status is what an agent says of a node.
func (h *host) status(agent, node string) string {
	h.t.Helper()
	for line := range strings.Lines(h.must("members", "--agent", agent, "--json")) {
		var m struct{ Name, Status string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			h.t.Fatalf("%q: %v", line, err)
		}
		if m.Name == node {
			return m.Status
		}
	}
	return ""
}

func (h *host) becomes(agent, node, status string) {
	h.t.Helper()
	eventually(h.t, agent+" sees "+node+" "+status, func() bool { return h.status(agent, node) == status })
}

// listen starts a listener and waits until it is attached.
func (h *host) listen(agent string, args ...string) *process {
	h.t.Helper()
	p := h.start("", append([]string{"listen", "--agent", agent}, args...)...)
	p.says("listening at " + agent)
	return p
}

// freePort is a port that nobody had a moment ago, TCP and UDP.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
