//go:build unix

package attack

import (
	"testing"
	"time"
)

// The target has no descriptors left. It serves those it has, waits for better
// times without turning in circles, and takes the next when they come.
func TestNoDescriptorsLeft(t *testing.T) {
	const free, strangers = 64, 120
	to := newTarget(t, targetSpec{FreeFiles: free})
	honest := newAsker(t, to)
	honest.calm()
	base := to.settle()

	var conns []*stranger
	for range strangers { // those that are not accepted wait in the system's queue
		c := connect(t, to, address(0))
		c.send(greeting(protoReq))
		conns = append(conns, c)
	}
	var r report
	to.eventually("it cannot accept", func() bool {
		r = to.look()
		return r.Lines["sp: cannot accept connections"] > 0
	}, func() any { return r })
	if r.Stats.Pipes < free/2 || r.Files > base.Files+free {
		t.Errorf("%+v, %d descriptors of %d", r.Stats, r.Files, base.Files+free)
	}
	honest.tell("without descriptors")

	// An endless loop would take the seconds that it lasts. The honest peer is quiet
	// meanwhile.
	honest.quit()
	before := to.look()
	const exhausted = 2 * time.Second
	time.Sleep(exhausted) // the measurement's length
	r = to.look()
	if spent := r.CPU - before.CPU; spent > exhausted/5 {
		t.Errorf("%v of CPU time in %v of having nothing to do", spent, r.Age-before.Age)
	} else {
		t.Logf("%v of CPU time in %v", spent, r.Age-before.Age)
	}
	if !conns[0].ready() || !conns[0].answered(1) {
		t.Error("the first is not served any more")
	}

	for _, c := range conns[:len(conns)-1] {
		_ = c.Close()
	}
	last := conns[len(conns)-1]
	if !last.ready() || !last.answered(2) {
		t.Error("the last is not served though there is room")
	}
	newAsker(t, to).calm()
	r = to.look()
	to.rarelyLogged(r)
	_ = last.Close()
	to.eventually("all is as it was", func() bool {
		r = to.settle()
		return r.Stats.Pending == 0 && r.Stats.Pipes <= base.Stats.Pipes && r.Files <= base.Files && r.Goroutines <= base.Goroutines
	}, func() any { return []report{base, r} })
}
