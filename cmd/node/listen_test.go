//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBodies(t *testing.T) {
	h := newHost(t)
	h.agent("node1")
	// A listener that gives back what it gets.
	h.listen("node1", "--exec", "cat")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	file := filepath.Join(h.dir, "body")
	full := bytes.Repeat([]byte("x"), 1<<20)
	for name, body := range map[string]string{"text": "hello", "binary": string(all), "a line": "line\n", "full size": string(full)} {
		if r := h.feed(body, "request", "node1"); r.code != 0 || r.out != body {
			t.Errorf("%s from standard input: %d bytes, exit code %d, %s", name, len(r.out), r.code, r.err)
		}
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := h.do("request", "node1", "--file", file); r.code != 0 || r.out != body {
			t.Errorf("%s from a file: %d bytes, exit code %d, %s", name, len(r.out), r.code, r.err)
		}
	}
	if r := h.feed("stdin", "request", "node1", "-"); r.out != "stdin" {
		t.Errorf(`"-": %+v`, r)
	}
	if r := h.feed("stdin", "request", "node1", "argument"); r.out != "argument" {
		t.Errorf("an argument beside standard input: %+v", r)
	}
	if r := h.do("request", "node1", "--", "-dash"); r.out != "-dash" {
		t.Errorf("a body that begins with a dash: %+v", r)
	}
	if r := h.do("request", "node1", ""); r.code != 0 || r.out != "" {
		t.Errorf("an empty body: %+v", r)
	}
	h.fails(1, []string{"empty", `""`}, "request", "node1")
	h.fails(1, []string{"both"}, "request", "node1", "x", "--file", file)
	h.fails(1, []string{"no such file"}, "request", "node1", "--file", "absent")

	two := strings.Repeat("x", 2<<20)
	h.check(h.feed(two, "send", "node1"), 9, []string{"NOT DELIVERED", "1048576"}, "send 2 MiB")
	if err := os.WriteFile(file, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	h.fails(9, []string{"NOT DELIVERED", "2097152", "1048576"}, "send", "node1", "--file", file)
}

func TestListen(t *testing.T) {
	h := newHost(t)
	one := h.agent("node1")
	l := h.listen("node1", "--topic", "orders.*", "--topic", "x", "--json", "--count", "4")
	h.must("send", "node1", "not for it")
	one.prints("not for it")
	h.must("send", "node1", "a", "--topic", "orders.new")
	h.must("push", "node1", "b", "--topic", "x")
	l.prints(`"body":"b"`)
	h.must("send", "node1", "", "--topic", "x")
	if r := h.feed("\xff\x00", "send", "node1", "--topic", "orders.old"); r.code != 0 {
		t.Errorf("binary: %s", r.err)
	}
	if code := l.wait(); code != 0 {
		t.Errorf("after --count the exit code is %d", code)
	}
	type heard struct {
		Kind, From, Topic string
		Time              time.Time
		Size              int
		Body              *string
		Base64            *string `json:"body_base64"`
	}
	var got []heard
	for line := range strings.Lines(l.out.String()) {
		var m heard
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, m)
	}
	if len(got) != 4 {
		t.Fatalf("heard %d messages", len(got))
	}
	if m := got[0]; m.Kind != "send" || m.From != "node1" || m.Topic != "orders.new" || *m.Body != "a" || m.Size != 1 || m.Time.IsZero() {
		t.Errorf("the first is %+v", m)
	}
	if m := got[1]; m.Kind != "push" || *m.Body != "b" {
		t.Errorf("the second is %+v", m)
	}
	if m := got[2]; m.Body == nil || *m.Body != "" || m.Size != 0 {
		t.Errorf("the empty one is %+v", m)
	}
	if m := got[3]; m.Body != nil || *m.Base64 != "/wA=" || m.Size != 2 {
		t.Errorf("the binary one is %+v", m)
	}
	// The agent prints again.
	h.must("send", "node1", "afterwards", "--topic", "x")
	one.prints("afterwards")
}

func TestListenExec(t *testing.T) {
	h := newHost(t)
	h.pair()
	l := h.listen("node2", "--topic", "env", "--exec", `printf '%s %s %s %s' "$PARLEY_FROM" "$PARLEY_TOPIC" "$PARLEY_KIND" "${#PARLEY_ID}"; cat`)
	if got := h.must("request", "--agent", "node1", "node2", "!", "--topic", "env"); got != "node1 env request 32!" {
		t.Errorf("the command saw %q", got)
	}
	h.listen("node2", "--topic", "fail", "--exec", "echo no such order >&2; exit 3")
	for _, verb := range []string{"send", "request"} {
		h.fails(7, []string{"node2", "HANDLER FAILED", "no such order", "exit status 3"}, verb, "--agent", "node1", "node2", "x", "--topic", "fail")
	}
	h.listen("node2", "--topic", "much", "--exec", "head -c 2000000 /dev/zero")
	h.fails(7, []string{"limit of 1048576"}, "request", "--agent", "node1", "node2", "x", "--topic", "much")
	h.listen("node2", "--topic", "deaf", "--exec", "exec 0<&-; echo hi")
	if r := h.feed(strings.Repeat("x", 1<<20), "request", "--agent", "node1", "node2", "--topic", "deaf"); r.code != 0 || r.out != "hi\n" {
		t.Errorf("a command that reads nothing: %+v", r)
	}

	// The sender gives up: it is told so, and the command ends.
	pid := filepath.Join(h.dir, "pid")
	h.listen("node2", "--topic", "slow", "--exec", "echo $$ > "+pid+".new; mv "+pid+".new "+pid+"; sleep 1000")
	r := h.start("", "request", "--agent", "node1", "node2", "x", "--topic", "slow", "--timeout", "2s")
	r.wait()
	h.check(result{r.out.String(), r.errOut.String(), r.code}, 5, []string{"request to node2", "in time", "--timeout"}, "slow")
	eventually(t, "the command has run", func() bool { _, err := os.Stat(pid); return err == nil })
	eventually(t, "the command has ended", func() bool {
		b, err := os.ReadFile(pid)
		return err == nil && syscall.Kill(atoi(t, string(b)), 0) != nil
	})

	// The sender is interrupted.
	if err := os.Remove(pid); err != nil {
		t.Error(err)
	}
	r = h.start("", "request", "--agent", "node1", "node2", "x", "--topic", "slow", "--timeout", "50s")
	eventually(t, "the command runs again", func() bool { _, err := os.Stat(pid); return err == nil })
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 130 || !strings.Contains(r.errOut.String(), "interrupted (UNKNOWN)") {
		t.Errorf("an interrupted request: exit code %d, %s", code, r.errOut.String())
	}

	// A listener is killed while it has a message.
	busy := filepath.Join(h.dir, "busy")
	victim := h.listen("node2", "--topic", "gone", "--exec", "touch "+busy+"; exec sleep 5")
	r = h.start("", "request", "--agent", "node1", "node2", "x", "--topic", "gone", "--timeout", "50s")
	eventually(t, "the command runs", func() bool { _, err := os.Stat(busy); return err == nil })
	victim.kill()
	r.wait()
	h.check(result{r.out.String(), r.errOut.String(), r.code}, 7, []string{"went away", "may have acted on it"}, "gone")

	l.signal(syscall.SIGTERM)
	if code := l.wait(); code != 0 {
		t.Errorf("a listen that was terminated ends with %d", code)
	}
}

// TestListenerWithoutATerminal: when the terminal goes away, the commands that
// the listener runs go too.
func TestListenerWithoutATerminal(t *testing.T) {
	h := newHost(t)
	h.pair()
	l := h.listen("node2", "--exec", "echo $$ > pid; sleep 300; true")
	h.start("", "request", "--agent", "node1", "--timeout", "1m", "node2", "x")
	var pid int
	eventually(t, "the command runs", func() bool {
		b, _ := os.ReadFile(filepath.Join(h.dir, "pid"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	l.signal(syscall.SIGHUP)
	if code := l.wait(); code != 0 { // as after an interrupt
		t.Errorf("the listener's exit code is %d", code)
	}
	eventually(t, "the command is gone", func() bool { return syscall.Kill(-pid, 0) != nil })
}
