//go:build unix

package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

func TestAgentLeaves(t *testing.T) {
	for name, end := range map[string]func(*host, *node){
		"interrupt":    func(_ *host, n *node) { n.signal(syscall.SIGINT) },
		"SIGTERM":      func(_ *host, n *node) { n.signal(syscall.SIGTERM) },
		"parley leave": func(h *host, n *node) { h.must("leave", "--agent", n.name) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			one, two := h.pair()
			socket := filepath.Join(h.dir, "parley", "node2.sock")
			if gone(socket) {
				t.Fatal("there is no control socket at", socket)
			}
			listener := h.listen("node2")
			end(h, two)
			if code := two.wait(); code != 0 {
				t.Errorf("the exit code is %d", code)
			}
			if !gone(two.ready) || !gone(socket) || !gone(socket+".lock") {
				t.Error("files were left behind")
			}
			if code := listener.wait(); code != 2 {
				t.Errorf("its listener ends with exit code %d, want 2", code)
			}
			h.becomes("node1", "node2", "left")
			h.fails(4, []string{"NOT DELIVERED", "left"}, "send", "node2", "x")
			if !strings.Contains(one.errOut.String(), "member left") {
				t.Error("node1 logged nothing of it")
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for sig, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		t.Run(sig.String(), func(t *testing.T) {
			h := newHost(t)
			one := h.agent("node1")
			// A message that takes long keeps it from leaving.
			busy := filepath.Join(h.dir, "busy")
			h.listen("node1", "--exec", "touch "+busy+"; sleep 1000")
			h.start("", "request", "node1", "x", "--timeout", "50s")
			eventually(t, "the command runs", func() bool { return !gone(busy) })
			one.signal(sig)
			one.says("leaving")
			one.signal(sig)
			if got := one.wait(); got != code {
				t.Errorf("the exit code is %d, want %d", got, code)
			}
		})
	}
}

func TestAgentIsKilled(t *testing.T) {
	h := newHost(t)
	one, two := h.pair()
	two.kill()
	h.becomes("node1", "node2", "failed")
	h.fails(4, []string{"NOT DELIVERED", "failed"}, "send", "--agent", "node1", "node2", "x")
	// It left its socket behind, which is no agent, and no obstacle.
	if got := h.must("info"); !strings.Contains(got, "node1") {
		t.Errorf("the dead agent's socket counts: %s", got)
	}
	two = h.agent("node2", "--join", one.addr)
	h.becomes("node1", "node2", "alive")
	h.must("send", "--agent", "node1", "node2", "again", "--wait")
	two.prints(`"again"`)
}

func TestAgentIsStopped(t *testing.T) {
	h := newHost(t)
	one, two := h.pair()
	one.signal(syscall.SIGSTOP)
	h.fails(2, []string{"does not answer", "UNKNOWN"}, "send", "--agent", "node1", "node2", "x", "--timeout", "100ms")
	// It is there all the same: its name and its socket are taken.
	second := h.agentNotReady("node1")
	if code := second.wait(); code != 1 || !strings.Contains(second.errOut.String(), "already runs") {
		t.Errorf("a second one of that name: exit code %d, %s", code, second.errOut.String())
	}
	h.becomes("node2", "node1", "failed")
	one.signal(syscall.SIGCONT)
	h.becomes("node2", "node1", "alive")
	h.becomes("node1", "node2", "alive")
	h.must("send", "--agent", "node1", "node2", "awake", "--wait")
	two.prints(`"awake"`)
}

func TestHangup(t *testing.T) {
	h := newHost(t)
	config := filepath.Join(h.dir, "parley.toml")
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("name = \"node1\"\ntag = [\"role=web\"]\nbind = \"127.0.0.1:0\"\n")
	ready := filepath.Join(h.dir, "node1.ready")
	one := &node{process: h.start("", "agent", "--config", config, "--ready-file", ready), name: "node1", ready: ready}
	one.isReady()
	if got := h.must("tags"); got != "role=web\n" {
		t.Errorf("tags at the start: %q", got)
	}
	set("name = \"node1\"\ntag = [\"role=db\"]\nlog-level = \"debug\"\n")
	one.signal(syscall.SIGHUP)
	eventually(t, "the new tags are there", func() bool { return h.must("tags") == "role=db\n" })
	one.says("log-level=DEBUG")

	set("nmae = \"node1\"\n")
	one.signal(syscall.SIGHUP)
	one.says("not read again")
	if got := h.must("tags"); got != "role=db\n" {
		t.Errorf("a bad file changed the tags to %q", got)
	}
	one.signal(syscall.SIGTERM)
	if code := one.wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}

func TestSeeds(t *testing.T) {
	h := newHost(t)
	dead := h.agentNotReady("node1", "--join", "127.0.0.1:9")
	if code := dead.wait(); code != 5 || !strings.Contains(dead.errOut.String(), "join via 127.0.0.1:9 failed") {
		t.Errorf("a dead seed: exit code %d, %s", code, dead.errOut.String())
	}
	if !gone(dead.ready) || !gone(filepath.Join(h.dir, "parley", "node1.sock")) {
		t.Error("files were left behind")
	}

	// A seed that is not there yet.
	addr := "127.0.0.1:" + freePort(t)
	// What a killed agent left says nothing.
	if err := os.WriteFile(filepath.Join(h.dir, "node2.ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	two := h.agentNotReady("node2", "--retry-join", addr)
	two.says("Another node joins with")
	if got := h.must("members"); strings.Count(got, "\n") != 2 {
		t.Errorf("it is not alone:\n%s", got)
	}
	if !gone(two.ready) {
		t.Error("it is ready before it has joined")
	}
	h.agent("node3", "--bind", addr)
	two.isReady()
	two.says("joined: 2 nodes alive")

	// A node that is its own seed has nobody to wait for.
	addr = "127.0.0.1:" + freePort(t)
	h.agent("node4", "--bind", addr, "--retry-join", addr)
	addr = "127.0.0.1:" + freePort(t)
	h.agent("node5", "--bind", addr, "--join", addr)
}

func TestKeys(t *testing.T) {
	h := newHost(t)
	for _, key := range []string{"a", "b"} {
		h.must("keygen", "--out", filepath.Join(h.dir, key))
	}
	a, b := filepath.Join(h.dir, "a"), filepath.Join(h.dir, "b")
	one := h.agent("node1", "--key-file", a)
	if !strings.Contains(one.errOut.String(), "encrypted     yes") {
		t.Errorf("the banner does not say that it is encrypted:\n%s", one.errOut.String())
	}
	h.agent("node2", "--key-file", a, "--join", one.addr)
	for _, args := range [][]string{nil, {"--key-file", b}} {
		other := h.agentNotReady("node3", append(args, "--join", one.addr)...)
		if code := other.wait(); code != 8 || !strings.Contains(other.errOut.String(), "--key-file") {
			t.Errorf("another key %q: exit code %d, %s", args, code, other.errOut.String())
		}
		h.fails(8, []string{"key"}, append([]string{"send", "node2", "x", "--join", one.addr}, args...)...)
	}
	h.must("send", "node2", "x", "--join", one.addr, "--key-file", a)
	h.fails(1, []string{"not base64"}, "agent", "--key", "secret!")
}

func TestPorts(t *testing.T) {
	h := newHost(t)
	one := h.agent("node1")
	h.fails(1, []string{one.addr, "in use", "--bind"}, "agent", "--name", "node2", "--bind", one.addr)

	// Without --bind another port will do.
	if l, err := net.Listen("tcp", "127.0.0.1:7946"); err == nil {
		defer l.Close()
	}
	ready := filepath.Join(h.dir, "node3.ready")
	three := &node{process: h.start("", "agent", "--name", "node3", "--join", one.addr, "--ready-file", ready), name: "node3", ready: ready}
	three.isReady()
	three.says("port 7946 is taken")
	if strings.HasSuffix(three.addr, ":7946") {
		t.Errorf("it is at %s", three.addr)
	}

	h.fails(1, []string{"in use", "--rep-port"}, "agent", "--name", "node5", "--bind", "127.0.0.1:0", "--rep-port", one.addr[strings.LastIndex(one.addr, ":")+1:])

	// Ports for the overlay that somebody wants to know before.
	rep, pull := freePort(t), freePort(t)
	h.agent("node4", "--rep-port", rep, "--pull-port", pull)
	if got := h.must("addr", "--agent", "node4", "node4"); !strings.Contains(got, "tcp://127.0.0.1:"+rep) || !strings.Contains(got, "tcp://127.0.0.1:"+pull) {
		t.Errorf("its endpoints are\n%s", got)
	}
}

func TestNameTaken(t *testing.T) {
	h := newHost(t)
	one := h.agent("node1")
	older := h.agent("twin", "--join", one.addr, "--socket", filepath.Join(h.dir, "older.sock"))
	h.becomes("node1", "twin", "alive")
	newer := h.agent("twin", "--join", one.addr, "--socket", filepath.Join(h.dir, "newer.sock"))
	if code := older.wait(); code != 1 || !strings.Contains(older.errOut.String(), "give one of them another name") {
		t.Errorf("the older one: exit code %d, %s", code, older.errOut.String())
	}
	h.must("send", "--agent", "node1", "twin", "which one?", "--wait")
	newer.prints("which one?")
}

func TestSocketFlag(t *testing.T) {
	h := newHost(t)
	socket := filepath.Join(h.dir, "sub", "ctl")
	h.agent("node1", "--socket", socket)
	if got := h.must("info", "--socket", socket); !strings.Contains(got, socket) {
		t.Errorf("info prints\n%s", got)
	}
	h.fails(1, []string{"shorter"}, "agent", "--name", "node2", "--bind", "127.0.0.1:0", "--socket", filepath.Join(h.dir, strings.Repeat("x", 120)))
	// Nor does a second one take anything from the first.
	second := h.start("", "agent", "--name", "node2", "--bind", "127.0.0.1:0", "--socket", socket, "--ready-file", filepath.Join(h.dir, "node1.ready"))
	if code := second.wait(); code != 1 || !strings.Contains(second.errOut.String(), "already runs") {
		t.Errorf("a second one on that socket: exit code %d, %s", code, second.errOut.String())
	}
	if gone(filepath.Join(h.dir, "node1.ready")) {
		t.Error("the second one removed the first one's ready file")
	}
}

// The reader of an agent's output may go away; the agent stays.
func TestOutputIsClosed(t *testing.T) {
	h := newHost(t)
	ready := filepath.Join(h.dir, "node1.ready")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	one := h.startWithOutput(w, "agent", "--name", "node1", "--bind", "127.0.0.1:0", "--ready-file", ready)
	w.Close()
	eventually(t, "it is ready", func() bool { return !gone(ready) })
	r.Close()
	h.fails(7, []string{"HANDLER FAILED", "could not print"}, "send", "node1", "x")
	h.must("ping", "node1", "-c", "1")
	one.signal(syscall.SIGTERM)
	if code := one.wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}

// TestStartAgainAfterLeave: when "parley leave" has ended, the socket is free,
// also when somebody had a connection to it.
func TestStartAgainAfterLeave(t *testing.T) {
	h := newHost(t)
	h.agent("node1")
	idle, err := net.Dial("unix", filepath.Join(h.dir, "parley", "node1.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	h.must("leave", "--agent", "node1")
	h.agent("node1")
}
