//go:build unix

package test

import (
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/test/harness"
)

// Three nodes as processes: one is killed and comes back elsewhere, one hangs and
// wakes up, one leaves. Messages by name find whoever is there.
func TestProcesses(t *testing.T) {
	node1 := harness.Spawn(t, "node1")
	node2 := harness.Spawn(t, "node2", "--join", node1.Addr())
	node3 := harness.Spawn(t, "node3", "--join", node1.Addr())
	harness.WaitProcesses(t, node1, node2, node3)

	says := func(from, to *harness.Process, text string) {
		t.Helper()
		from.Must("send", to.Name, text)
		harness.Eventually(t, time.Minute, func() bool { return strings.Contains(to.Output(), text) }, "%s prints %q", to.Name, text)
	}
	says(node1, node2, "hello from the first")
	says(node2, node3, "hello from the second")
	says(node3, node1, "hello from the third")

	// Killed: the others notice, and a message to it fails with the reason.
	node2.Kill()
	for _, p := range []*harness.Process{node1, node3} {
		p.WaitStatus("node2", "failed")
		if _, errs, code := p.Run("send", "node2", "is anybody there?"); code != 4 || !strings.Contains(errs, "NOT DELIVERED") {
			t.Errorf("send to a node that has failed: exit code %d: %s", code, errs)
		}
	}

	// Back under its name, at another port: messages go there, old links or none.
	again := harness.Spawn(t, "node2", "--join", node3.Addr())
	if again.Addr() == node2.Addr() {
		t.Fatalf("it has its old address %s", again.Addr())
	}
	harness.WaitProcesses(t, node1, again, node3)
	says(node1, again, "welcome back, from one")
	says(node3, again, "welcome back, from three")
	if strings.Contains(node2.Output(), "welcome back") {
		t.Error("the earlier life got it")
	}

	// It hangs for long enough to be given up, wakes up, and is back without help.
	again.Suspend()
	for _, p := range []*harness.Process{node1, node3} {
		p.WaitStatus("node2", "failed")
	}
	again.Resume()
	harness.WaitProcesses(t, node1, again, node3)
	says(node1, again, "good morning")
	says(again, node3, "good morning to you")

	// It leaves.
	if code := again.Stop(); code != 0 {
		t.Errorf("stopped with exit code %d", code)
	}
	for _, p := range []*harness.Process{node1, node3} {
		p.WaitStatus("node2", "left")
		if _, errs, code := p.Run("send", "node2", "goodbye"); code != 4 || !strings.Contains(errs, "NOT DELIVERED") {
			t.Errorf("send to a node that has left: exit code %d: %s", code, errs)
		}
	}
	says(node1, node3, "just the two of us")
}
