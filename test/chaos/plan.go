package chaos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Plan says what goes wrong, and how often. Chances are between 0 and 1.
type Plan struct {
	// Of each piece that was read, of up to 32 KiB, the chance that it is:
	Split float64 // written in several parts, of one byte each and up
	Delay float64 // held back for up to MaxDelay
	Stall float64 // the last that is read for up to MaxStall, so that the sender feels it

	MaxDelay, MaxStall time.Duration

	// Of each connection, the chance that it ends so; together at most 1. That
	// happens at a random byte of one direction, MaxBytes at most and most often
	// early, or else when MaxLife is over at most.
	Cut       float64 // both sides are closed
	Reset     float64 // both sides are reset
	HalfClose float64 // the reader of one direction sees the end; what is still written there is swallowed
	BlackHole float64 // what comes from one side, or both, is swallowed without a word for up to MaxHole; then as Cut

	MaxBytes int64
	MaxLife  time.Duration
	MaxHole  time.Duration
}

// Rough is a plan in which every connection ends, within a fifth of a second.
func Rough() Plan {
	p := Slow()
	p.Cut, p.Reset, p.HalfClose, p.BlackHole = 0.35, 0.25, 0.25, 0.15
	p.MaxBytes, p.MaxLife, p.MaxHole = 4<<20, 150*time.Millisecond, 60*time.Millisecond
	return p
}

// Slow is a plan that delays, stalls and splits, and ends no connection.
func Slow() Plan {
	return Plan{
		Split: 0.2, Delay: 0.05, Stall: 0.02,
		MaxDelay: 3 * time.Millisecond, MaxStall: 20 * time.Millisecond,
	}
}

// Fault is what ends a connection.
type Fault int

const (
	Orderly     Fault = iota // its two ends closed it themselves
	Broken                   // one of its ends reset it, or did not read what was to come
	Unreachable              // the target could not be dialed
	Closed                   // by the Proxy's Close
	Cut
	Reset
	HalfClose
	BlackHole
)

func (f Fault) String() string {
	switch f {
	case Orderly:
		return "orderly end"
	case Broken:
		return "broken by an end"
	case Unreachable:
		return "unreachable"
	case Closed:
		return "proxy closed"
	case Cut:
		return "cut"
	case Reset:
		return "reset"
	case HalfClose:
		return "half-close"
	case BlackHole:
		return "black hole"
	}
	return fmt.Sprintf("Fault(%d)", int(f))
}

// fate is how one connection is to end.
type fate struct {
	fault    Fault // Orderly: by itself
	up, down bool  // the directions concerned
	after    int64 // bytes forwarded in one of them, up's first; or
	life     time.Duration
	hole     time.Duration
}

// draw decides how a connection ends.
func (p Plan) draw(r *rand.Rand) fate {
	f := fate{up: r.IntN(2) == 0}
	f.down = !f.up
	switch x := r.Float64(); {
	case x < p.Cut:
		f.fault = Cut
	case x < p.Cut+p.Reset:
		f.fault = Reset
	case x < p.Cut+p.Reset+p.HalfClose:
		f.fault = HalfClose
	case x < p.Cut+p.Reset+p.HalfClose+p.BlackHole:
		f.fault = BlackHole
		if r.IntN(3) == 0 {
			f.up, f.down = true, true
		}
	}
	// Each power of two is as likely as the next: greetings and first headers
	// are hit as well as what comes much later.
	f.after = int64(math.Exp2(r.Float64() * math.Log2(float64(max(p.MaxBytes, 1)))))
	f.life = upTo(r, p.MaxLife)
	f.hole = upTo(r, p.MaxHole)
	return f
}

// upTo is a random time of at most d.
func upTo(r *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(d)) + 1)
}
