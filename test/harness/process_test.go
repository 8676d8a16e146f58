//go:build unix

package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A process runs, answers, hangs, wakes up and stops, and its traces are gone.
func TestProcess(t *testing.T) {
	if bin := Build(t); bin != Build(t) {
		t.Error("built twice")
	}
	var dir string
	t.Run("life", func(t *testing.T) {
		p := Spawn(t, "node1", "--tag", "role=test")
		dir = p.dir
		if out := p.Must("addr", "node1"); !strings.Contains(out, "tcp://127.0.0.1:") {
			t.Errorf("addr says %q", out)
		}
		if !strings.Contains(p.Must("members"), "role=test") {
			t.Error("the flag got lost")
		}
		out, errs, code := p.Run("send", "node9", "hello")
		if code != 3 || out != "" || !strings.Contains(errs, "node9") {
			t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
		}
		if one, nine := p.Status("node1"), p.Status("node9"); one != "alive" || nine != "unknown" {
			t.Errorf("status %q and %q", one, nine)
		}
		p.Suspend()
		if _, _, code := p.Run("info", "--timeout", "200ms"); code == 0 {
			t.Error("it answers while it is suspended")
		}
		p.Resume()
		p.Must("info")
		if code := p.Stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		p.Kill()
		p.Kill()
		if !strings.Contains(p.Output(), p.Addr()) {
			t.Errorf("%s is not in its output\n%s", p.Addr(), p.Output())
		}
	})
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left behind", dir)
	}
	t.Run("killed", func(t *testing.T) { // by the cleanup
		p := Spawn(t, "node1")
		t.Cleanup(func() { // before that of Spawn
			select {
			case <-p.ended:
				t.Errorf("it has ended by itself\n%s", p.Output())
			default:
			}
		})
	})
}

// An agent that does not come up fails the test at once, and says how it ended.
func TestSpawnFails(t *testing.T) {
	failed := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		Spawn(failed, "node1", "--profile", "leisurely")
	}()
	if failed.text != "node1 has ended with exit code 1" {
		t.Errorf("said %q", failed.text)
	}
}
