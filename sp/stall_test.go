package sp

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// dueConn notes its deadline.
type dueConn struct {
	net.Conn
	due time.Time
}

func (c *dueConn) SetWriteDeadline(t time.Time) error { c.due = t; return nil }

// When all that was queued at first is written in time, what came after it has the time
// of a step and of its own whole, not what was left of the first whole.
func TestStallDeadlineOfWhatComesAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall = 10 * time.Second
		c := &dueConn{}
		w := newWriter(c, nil, 8<<20, stall, &counters{}, func(error) {})
		queue := func(n int) { w.add(n, nil, [][]byte{make([]byte, n-lengthSize)}) }
		begun := time.Now()
		check := func(want time.Duration) {
			t.Helper()
			w.watchStall()
			if got := c.due.Sub(begun); got != want {
				t.Errorf("after %v: %v, want %v", time.Since(begun), got, want)
			}
		}
		queue(2*stallStep + 100)
		check(stall)
		queue(stallStep) // is not in the whole
		time.Sleep(9 * time.Second)
		w.advance(stallStep)
		check(9*time.Second + stall)
		time.Sleep(9 * time.Second)
		w.advance(stallStep)
		check(2 * stall) // the whole
		time.Sleep(time.Second)
		w.advance(100)
		check(18*time.Second + stall) // the step that began with the last bytes
		time.Sleep(8 * time.Second)
		w.advance(stallStep - 100)
		check(27*time.Second + stall)
	})
}
