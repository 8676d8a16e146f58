package attack

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// A listener keeps as many connections as it was told to. One network gets half of
// the places and no more, each of the others is sure of a sixteenth.
func TestConnectionPlaces(t *testing.T) {
	const places = 64
	needAddresses(t)
	to := newTarget(t, targetSpec{MaxPipes: places})
	base := to.settle()
	var in []*stranger
	crowd := func(from string) (got int) {
		t.Helper()
		for {
			refused := to.look().Stats.Refused
			c := connect(t, to, from)
			if c.letIn(to) {
				in = append(in, c)
				got++
				continue
			}
			to.waitFor("the refusal is counted", func(st sp.Stats) bool { return st.Refused == refused+1 })
			return got
		}
	}
	if n := crowd(address(0)); n != places/2 {
		t.Errorf("the first address got %d places, want %d", n, places/2)
	}
	for i := range 8 {
		if n := crowd(address(1 + i)); n != places/16 {
			t.Errorf("address %d got %d places, want %d", 1+i, n, places/16)
		}
	}
	if n := crowd(address(20)); n != 0 {
		t.Errorf("%d connections over MaxPipes", n)
	}
	if st := to.look().Stats; st.Pipes != places || st.Accepted != places || st.Refused != 10 {
		t.Errorf("%+v", st)
	}

	// Those who are in are served, and whoever leaves makes room.
	for i, c := range in {
		if !c.answered(uint32(i)) {
			t.Errorf("connection %d is not served", i)
		}
	}
	_ = in[0].Close()
	to.waitFor("one has left", func(st sp.Stats) bool { return st.Pipes == places-1 })
	if c := connect(t, to, address(20)); !c.letIn(to) {
		t.Error("no room after one has left")
	} else {
		in = append(in, c)
	}
	to.rarelyLogged(to.look())
	for _, c := range in {
		_ = c.Close()
	}
	to.backTo(base)
}

// letIn shakes hands and reports whether the target answers a request then.
func (c *stranger) letIn(to *target) bool {
	c.t.Helper()
	return greet(c, to) == nil && c.answered(0)
}

// answered sends a request and reports whether there is an answer.
func (c *stranger) answered(id uint32) bool {
	c.t.Helper()
	q := request(id, []byte("hello"))
	if _, err := c.Write(q); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(soon))
	_, err := io.ReadFull(c, make([]byte, len(q)))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("neither answered nor disconnected within %v", soon)
	}
	return err == nil
}
