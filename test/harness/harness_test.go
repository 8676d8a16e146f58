package harness

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/cluster"
)

// A cluster comes up, and what is not so is seen as not so.
func TestHarness(t *testing.T) {
	nodes := Start(t, 3, Options{})
	if got := differences(nodes); got != nil {
		t.Fatalf("converged, but %q", got)
	}
	nodes[1].Kill()
	nodes[1].Kill()
	if got := differences([]*Node{nodes[0], nodes[2]}); len(got) == 0 {
		t.Error("a node that was killed just now is not missed")
	}
	WaitStatus(t, nodes[0], "node2", cluster.Failed)
	WaitConverged(t, nodes[0], nodes[2])
	again := nodes[1].Restart()
	if got := strings.Join(differences([]*Node{nodes[0], again, nodes[2]}), "\n"); !strings.Contains(got, "node2") && got != "" {
		t.Errorf("differences %q do not tell of node2", got)
	}
	WaitConverged(t, nodes[0], again, nodes[2])
	again.Leave()
	WaitStatus(t, nodes[2], "node2", cluster.Left)
	if log := again.log.String(); !strings.Contains(log, "node=node2") {
		t.Errorf("its log:\n%s", log)
	}
}

func TestEventually(t *testing.T) {
	n := 0
	Eventually(t, time.Minute, func() bool { n++; return n == 3 }, "three")
	if n != 3 {
		t.Errorf("asked %d times", n)
	}
	failed := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		Eventually(failed, time.Millisecond, func() bool { return false }, "pigs %s", "fly")
	}()
	if failed.text != "not within 1ms: pigs fly" {
		t.Errorf("said %q", failed.text)
	}
}

// recorder is a test that fails by panicking.
type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.text = fmt.Sprintf(format, args...)
	panic(r.text)
}

func TestLogIsBounded(t *testing.T) {
	l := NewLog(t, "node1")
	for i := range 10_000 {
		l.Info("a line that is about as long as lines are", "i", i)
	}
	s := l.String()
	if len(s) > maxLog+100 || !strings.HasPrefix(s, "(earlier lines dropped)\ntime=") || !strings.Contains(s, "i=9999") {
		t.Errorf("%d bytes, from %.60q", len(s), s)
	}
}
