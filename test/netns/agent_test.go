//go:build linux

package netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-mesh/parley/test/harness"
)

var binary string // parley, built once for all tests

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-netns")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "parley")
	if os.Geteuid() == 0 { // else all tests skip
		if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/node").CombinedOutput(); err != nil {
			panic("go build: " + string(out))
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// agent is a parley agent that runs on a host.
type agent struct {
	*host
	name string
	cmd  *exec.Cmd
	dir  string
	out  *harness.Log
}

// start runs an agent on h and waits until it is ready.
func (h *host) start(t *testing.T, name string, flags ...string) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "parley") // not t.TempDir: a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &agent{host: h, name: name, dir: dir, out: harness.NewLog(t, name+" on "+h.name)}
	ready := filepath.Join(dir, "ready")
	args := []string{"netns", "exec", h.ns, binary, "agent", "--name", name, "--profile", "local",
		"--socket", a.socket(), "--ready-file", ready}
	a.cmd = exec.Command("ip", append(args, flags...)...)
	a.cmd.Stdout, a.cmd.Stderr = a.out, a.out
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.cmd.Wait()
	}()
	t.Cleanup(func() {
		a.kill()
		<-ended
	})
	eventually(t, func() bool {
		select {
		case <-ended:
			t.Fatalf("%s has ended", name)
		default:
		}
		_, err := os.Stat(ready)
		return err == nil
	}, "%s is ready", name)
	return a
}

func (a *agent) socket() string { return filepath.Join(a.dir, "sock") }

// kill ends the agent without goodbye.
func (a *agent) kill() { a.cmd.Process.Kill() }

// parley runs a verb against the agent and returns its output and exit code.
func (a *agent) parley(t *testing.T, verb string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{verb}, args...)...)
	cmd.Env = append(os.Environ(), "PARLEY_SOCKET="+a.socket())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// member is a line of "parley members --json".
type member struct {
	Name, Addr, Status string
}

func (a *agent) members(t *testing.T) map[string]member {
	t.Helper()
	out, errs, code := a.parley(t, "members", "--json")
	if code != 0 {
		t.Fatalf("%s: members: exit %d: %s", a.name, code, errs)
	}
	all := make(map[string]member)
	for line := range strings.Lines(out) {
		var m member
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all[m.Name] = m
	}
	return all
}

// sees waits until a lists all of agents with that status.
func (a *agent) sees(t *testing.T, status string, agents ...*agent) {
	t.Helper()
	eventually(t, func() bool {
		members := a.members(t)
		for _, other := range agents {
			if members[other.name].Status != status {
				return false
			}
		}
		return true
	}, "%s sees the others %s", a.name, status)
}

// sends fails unless the message arrives at to, within one call.
func (a *agent) sends(t *testing.T, to *agent, body string) {
	t.Helper()
	if _, errs, code := a.parley(t, "send", to.name, body); code != 0 {
		t.Fatalf("%s to %s: exit %d: %s", a.name, to.name, code, errs)
	}
	eventually(t, func() bool { return strings.Contains(to.out.String(), body) }, "%s prints %s", to.name, body)
}

// reaches waits until a message arrives at to. For some seconds after a cut the kernel may
// still say that there is no route to the host.
func (a *agent) reaches(t *testing.T, to *agent, body string) {
	t.Helper()
	eventually(t, func() bool {
		_, errs, code := a.parley(t, "send", to.name, body)
		if code != 0 && !strings.Contains(errs, "NOT DELIVERED") {
			t.Fatalf("%s to %s: exit %d: %s", a.name, to.name, code, errs)
		}
		return code == 0
	}, "%s sends to %s", a.name, to.name)
	eventually(t, func() bool { return strings.Contains(to.out.String(), body) }, "%s prints %s", to.name, body)
}

func eventually(t *testing.T, cond func() bool, msg string, args ...any) {
	t.Helper()
	harness.Eventually(t, 45*time.Second, cond, msg, args...)
}
