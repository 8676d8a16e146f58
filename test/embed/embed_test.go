// Package embed_test builds examples/embed, which is a module of its own, and runs it.
package embed_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-mesh/parley/test/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEmbed(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "embed")
	if runtime.GOOS == "windows" {
		t.Skip("no interrupt for another process on Windows")
	}
	if out, err := exec.Command("go", "build", "-C", "../../examples/embed", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	alice := start(t, bin, "alice", "127.0.0.1:0")
	addr := alice.await(t, `alice is ready on (\S+)`)
	bob := start(t, bin, "bob", "127.0.0.1:0", addr)
	bob.await(t, `(hello bob, this is alice)`)
	bob.await(t, `bob is (ready)`)
	bob.interrupt(t)
	alice.interrupt(t)
}

// service is an embed that runs.
type service struct {
	cmd  *exec.Cmd
	wait func() error // waits for its end, once for all callers
	log  *harness.Log
}

func start(t *testing.T, bin string, args ...string) *service {
	t.Helper()
	s := &service{cmd: exec.Command(bin, args...), log: harness.NewLog(t, args[0])}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.wait = sync.OnceValue(s.cmd.Wait)
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.wait()
	})
	return s
}

// await returns the first submatch of pattern in the output.
func (s *service) await(t *testing.T, pattern string) string {
	t.Helper()
	var match []string
	harness.Eventually(t, 30*time.Second, func() bool {
		match = regexp.MustCompile(pattern).FindStringSubmatch(s.log.String())
		return match != nil
	}, "%s in the output", pattern)
	return match[1]
}

// interrupt asks the service to end and fails unless it does so with 0.
func (s *service) interrupt(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("still running")
	}
}
