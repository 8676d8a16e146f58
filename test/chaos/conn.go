package chaos

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// PieceSize is how much a Proxy reads and forwards at once, in bytes.
const PieceSize = 32 << 10

// Record is what is known of a connection that has ended.
type Record struct {
	Number   int // from 1, in the order of acceptance
	Ended    Fault
	Up, Down Flow // to the target, and from it
}

// Flow is one direction of a connection.
type Flow struct {
	Read    int64 // bytes taken from the one end
	Written int64 // bytes that the system took for the other
}

// conn is one connection through a Proxy: two flows and a fate.
type conn struct {
	p        *Proxy
	number   int
	began    time.Time
	fate     fate
	up, down flow

	struck     chan struct{} // closed when fate has struck
	strikeOnce sync.Once
	done       chan struct{} // closed when both sides are being closed
	endOnce    sync.Once
	ended      atomic.Int64 // Fault
}

// flow is one direction. One goroutine, pump, moves it.
type flow struct {
	name     string
	src, dst *net.TCPConn
	chance   *rand.Rand
	forward  *atomic.Int64 // the Proxy's count
	limit    int64         // bytes to forward before fate strikes; negative: none

	read, written atomic.Int64
	swallow       atomic.Bool // what is read from now on goes nowhere
	failed        atomic.Bool // dst takes no more
	finished      atomic.Bool // pump has returned
}

func newConn(p *Proxy, number int, in, out *net.TCPConn) *conn {
	c := &conn{p: p, number: number, began: time.Now(), fate: p.cfg.Plan.draw(p.chance(number, 0)), struck: make(chan struct{}), done: make(chan struct{})}
	c.up = flow{name: "up", src: in, dst: out, chance: p.chance(number, 1), forward: &p.counts.up, limit: -1}
	c.down = flow{name: "down", src: out, dst: in, chance: p.chance(number, 2), forward: &p.counts.down, limit: -1}
	switch {
	case c.fate.fault == Orderly:
	case c.fate.up:
		c.up.limit = c.fate.after
	default:
		c.down.limit = c.fate.after
	}
	if b := p.cfg.Buffer; b > 0 {
		for _, s := range []*net.TCPConn{in, out} {
			_ = s.SetReadBuffer(b)
			_ = s.SetWriteBuffer(b)
		}
	}
	return c
}

// run carries the connection to its end and waits for both flows.
func (c *conn) run() {
	var wg sync.WaitGroup
	wg.Go(func() { c.pump(&c.up, &c.down) })
	wg.Go(func() { c.pump(&c.down, &c.up) })
	pumped := make(chan struct{})
	go func() { // ends with the flows, which this waits for
		wg.Wait()
		close(pumped)
	}()
	timer := time.NewTimer(c.fate.life)
	defer timer.Stop()
	due, struck := timer.C, c.struck
	if c.fate.fault == Orderly {
		due = nil
	}
	for running := true; running; {
		select {
		case <-pumped:
			running = false
		case <-due:
			due = nil
			select {
			case <-c.struck:
				c.end(Cut) // the black hole's end
			default:
				c.strike(nil)
			}
		case <-struck:
			struck = nil
			if c.fate.fault == BlackHole {
				timer.Reset(c.fate.hole)
				due = timer.C
			} else {
				due = nil
			}
		case <-c.p.ctx.Done():
			c.end(Closed)
			<-pumped
			running = false
		}
	}
	c.end(Orderly)
}

func (c *conn) record() Record {
	return Record{
		Number: c.number, Ended: Fault(c.ended.Load()),
		Up:   Flow{Read: c.up.read.Load(), Written: c.up.written.Load()},
		Down: Flow{Read: c.down.read.Load(), Written: c.down.written.Load()},
	}
}

// strike does what fate has in store.
func (c *conn) strike(at *flow) {
	c.strikeOnce.Do(func() {
		defer close(c.struck)
		where := "by the clock"
		if at != nil {
			where = at.name
		}
		switch f := c.fate; f.fault {
		case Cut, Reset:
			c.end(f.fault)
		case HalfClose:
			c.p.counts.halfCloses.Add(1)
			c.ended.Store(int64(HalfClose))
			half := &c.up
			if f.down {
				half = &c.down
			}
			half.swallow.Store(true)
			_ = half.dst.CloseWrite()
		case BlackHole:
			c.p.counts.blackHoles.Add(1)
			c.ended.Store(int64(BlackHole))
			c.up.swallow.Store(f.up)
			c.down.swallow.Store(f.down)
		}
		c.p.note("connection %d: %v, %s, after %v, %d bytes up and %d down",
			c.number, c.fate.fault, where, time.Since(c.began).Round(time.Millisecond), c.up.written.Load(), c.down.written.Load())
	})
}

// end closes both sides, once, and reports whether this call did.
func (c *conn) end(how Fault) (first bool) {
	c.endOnce.Do(func() {
		first = true
		switch how {
		case Cut:
			if Fault(c.ended.Load()) != BlackHole {
				c.p.counts.cuts.Add(1)
			}
		case Reset:
			c.p.counts.resets.Add(1)
		}
		c.ended.CompareAndSwap(int64(Orderly), int64(how)) // what came first is the cause
		close(c.done)
		for _, s := range []*net.TCPConn{c.up.src, c.up.dst} {
			if how == Reset || how == Broken {
				_ = s.SetLinger(0)
			}
			_ = s.Close()
		}
	})
	return first
}

// sleep returns false when the connection ends meanwhile.
func (c *conn) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}

// pass waits for the end of a Pause; false when the connection ends first.
func (c *conn) pass() bool {
	select {
	case <-c.p.passing():
		return true
	case <-c.done:
		return false
	}
}

// pump forwards what f.src says to f.dst until the one or the other ends.
func (c *conn) pump(f, back *flow) {
	defer f.finished.Store(true)
	buf := make([]byte, PieceSize)
	for {
		if !c.pass() {
			return
		}
		n, err := f.src.Read(buf)
		f.read.Add(int64(n))
		if n > 0 && !c.handle(f, back, buf[:n]) {
			return
		}
		switch {
		case errors.Is(err, io.EOF):
			if !f.swallow.Load() {
				_ = f.dst.CloseWrite()
			}
			if back.failed.Load() {
				c.end(Broken) // who was writing to this end learns it now
			}
			return
		case err != nil:
			c.end(Broken)
			return
		}
		plan := &c.p.cfg.Plan
		if plan.Stall > 0 && f.chance.Float64() < plan.Stall {
			c.p.counts.stalls.Add(1)
			if !c.sleep(upTo(f.chance, plan.MaxStall)) {
				return
			}
		}
	}
}

// handle forwards a piece, or as much of it as fate allows, or nothing. It returns
// false when the flow has ended.
func (c *conn) handle(f, back *flow, b []byte) bool {
	if !c.pass() {
		return false
	}
	plan := &c.p.cfg.Plan
	if plan.Delay > 0 && f.chance.Float64() < plan.Delay {
		c.p.counts.delays.Add(1)
		if !c.sleep(upTo(f.chance, plan.MaxDelay)) {
			return false
		}
	}
	strikes := false
	if f.limit >= 0 {
		if left := f.limit - f.written.Load(); left <= int64(len(b)) {
			strikes = true
			c.swallowed(len(b) - int(max(left, 0)))
			b = b[:max(left, 0)]
		}
	}
	if f.swallow.Load() {
		c.swallowed(len(b))
		return true
	}
	err := c.write(f, b)
	if strikes {
		f.limit = -1
		f.swallow.Store(true) // nothing may follow what was left out
		c.strike(f)
	}
	if err == nil || f.swallow.Load() {
		return true
	}
	// The other end takes no more. What it still has to say comes first.
	f.failed.Store(true)
	f.swallow.Store(true)
	if back.finished.Load() {
		c.end(Broken)
		return false
	}
	return true
}

func (c *conn) swallowed(n int) { c.p.counts.swallowed.Add(int64(n)) }

// write forwards all of b, in parts if chance wants it.
func (c *conn) write(f *flow, b []byte) error {
	plan := &c.p.cfg.Plan
	if len(b) < 2 || plan.Split == 0 || f.chance.Float64() >= plan.Split {
		return f.put(b)
	}
	c.p.counts.splits.Add(1)
	single := f.chance.IntN(4) == 0 // the first bytes one by one
	for parts := 2 + f.chance.IntN(14); parts > 1 && len(b) > 1; parts-- {
		n := 1
		if !single {
			n += f.chance.IntN(len(b) - 1)
		}
		if err := f.put(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if f.chance.IntN(4) == 0 { // the reader gets it apart from the rest, more likely
			c.sleep(50 * time.Microsecond)
		} else {
			runtime.Gosched()
		}
	}
	return f.put(b)
}

func (f *flow) put(b []byte) error {
	n, err := f.dst.Write(b)
	f.written.Add(int64(n))
	f.forward.Add(int64(n))
	return err
}
