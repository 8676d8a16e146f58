// Package chaos makes a network bad, and tells what became of the messages on it.
//
// A Proxy stands between two programs that speak over TCP. It forwards what they
// say byte by byte; by chance, from a seed that can be given again, it delays,
// splits and stalls, and ends connections in every way that a network has. A History
// is told what was sent, what the calls returned and what was handled, and knows
// what must hold between them.
//
//	p, err := chaos.Listen(chaos.Config{Target: "127.0.0.1:4000", Seed: chaos.Seed(t), Plan: chaos.Rough()})
//	defer p.Close()
//	… and dial p.Addr() instead of the target
package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxTrace is how many faults a Proxy remembers for Trace; the oldest give way.
const maxTrace = 24

// Config of a Proxy.
type Config struct {
	Target string // host:port that connections are forwarded to
	Seed   uint64 // of all chance. Connections are numbered, and one of the same number has the same fate
	Plan   Plan   // what goes wrong by itself; the zero value forwards faithfully
	Buffer int    // of each socket, each way, in bytes; 0: the system's. Loopback crawls under 128 KiB, two of its packets

	// Ended, if set, is told of each connection that has ended, once, by the
	// connection's goroutine.
	Ended func(Record)
}

// Proxy forwards connections, and does to them what its Plan says and what it is
// told to. Its methods may be called concurrently.
type Proxy struct {
	cfg    Config
	ln     net.Listener
	counts counts
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the accept loop and one for each connection

	mu      sync.Mutex
	conns   map[*conn]struct{}
	open    chan struct{} // closed while nothing is paused
	paused  bool
	trace   []string
	started time.Time
}

// Listen starts a Proxy on a free port of the loopback interface.
func Listen(cfg Config) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	p := &Proxy{cfg: cfg, ln: ln, conns: make(map[*conn]struct{}), open: make(chan struct{}), started: time.Now()}
	close(p.open)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where to connect to, host:port.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// accept ends when Close closes the listener.
func (p *Proxy) accept() {
	for number := 1; ; number++ {
		in, err := p.ln.Accept()
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			p.note("accept: %v", err)
			number--
			select { // short of descriptors, which others may give back
			case <-time.After(10 * time.Millisecond):
			case <-p.ctx.Done():
			}
			continue
		}
		p.counts.connections.Add(1)
		p.wg.Go(func() { p.carry(number, in.(*net.TCPConn)) })
	}
}

// carry is the life of one connection.
func (p *Proxy) carry(number int, in *net.TCPConn) {
	var d net.Dialer
	out, err := d.DialContext(p.ctx, "tcp", p.cfg.Target)
	if err != nil {
		p.counts.unreachable.Add(1)
		_ = in.Close()
		if p.cfg.Ended != nil {
			p.cfg.Ended(Record{Number: number, Ended: Unreachable})
		}
		return
	}
	c := newConn(p, number, in, out.(*net.TCPConn))
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	c.run()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	if p.cfg.Ended != nil {
		p.cfg.Ended(c.record())
	}
}

// CutAll closes all connections that carry bytes, on both sides, and says how many
// they were. One that is just being made may be missed.
func (p *Proxy) CutAll() int { return p.endAll(Cut) }

// ResetAll is CutAll with resets.
func (p *Proxy) ResetAll() int { return p.endAll(Reset) }

func (p *Proxy) endAll(how Fault) (n int) {
	for _, c := range p.snapshot() {
		if c.end(how) {
			n++
		}
	}
	return n
}

func (p *Proxy) snapshot() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// Pause stops all forwarding until Resume. Connections stay, and new ones are made
// but carry nothing.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.paused {
		p.paused, p.open = true, make(chan struct{})
		p.counts.pauses.Add(1)
	}
}

// Resume ends a Pause.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		p.paused = false
		close(p.open)
	}
}

// passing is closed while nothing is paused.
func (p *Proxy) passing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// Close ends everything and waits for it.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.ln.Close()
	p.wg.Wait()
}

// Counts says what the Proxy has done so far.
func (p *Proxy) Counts() Counts { return p.counts.snapshot() }

// Trace is the last faults in words, for who has to find out why.
func (p *Proxy) Trace() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.trace...)
}

func (p *Proxy) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.trace) == maxTrace {
		p.trace = append(p.trace[:0], p.trace[1:]...)
	}
	p.trace = append(p.trace, fmt.Sprintf("%v ", time.Since(p.started).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// chance is the source of one purpose of one connection.
func (p *Proxy) chance(number, purpose int) *rand.Rand {
	return rand.New(rand.NewPCG(p.cfg.Seed, uint64(number)<<8|uint64(purpose)))
}

// counts is where Counts come from.
type counts struct {
	connections, unreachable             atomic.Int64
	cuts, resets, halfCloses, blackHoles atomic.Int64
	splits, delays, stalls, pauses       atomic.Int64
	up, down, swallowed                  atomic.Int64
}

// Counts is what a Proxy did.
type Counts struct {
	Connections, Unreachable             int64 // accepted; of these, those whose target did not answer
	Cuts, Resets, HalfCloses, BlackHoles int64 // connections
	Splits, Delays, Stalls, Pauses       int64
	Up, Down, Swallowed                  int64 // bytes forwarded to the target, forwarded from it, and read to no avail
}

func (c *counts) snapshot() Counts {
	return Counts{
		Connections: c.connections.Load(), Unreachable: c.unreachable.Load(),
		Cuts: c.cuts.Load(), Resets: c.resets.Load(), HalfCloses: c.halfCloses.Load(), BlackHoles: c.blackHoles.Load(),
		Splits: c.splits.Load(), Delays: c.delays.Load(), Stalls: c.stalls.Load(), Pauses: c.pauses.Load(),
		Up: c.up.Load(), Down: c.down.Load(), Swallowed: c.swallowed.Load(),
	}
}

// Broken is the number of connections that the Proxy ended or crippled.
func (c Counts) Broken() int64 { return c.Cuts + c.Resets + c.HalfCloses + c.BlackHoles }

// Add returns the sum of c and d.
func (c Counts) Add(d Counts) Counts {
	return Counts{
		Connections: c.Connections + d.Connections, Unreachable: c.Unreachable + d.Unreachable,
		Cuts: c.Cuts + d.Cuts, Resets: c.Resets + d.Resets, HalfCloses: c.HalfCloses + d.HalfCloses, BlackHoles: c.BlackHoles + d.BlackHoles,
		Splits: c.Splits + d.Splits, Delays: c.Delays + d.Delays, Stalls: c.Stalls + d.Stalls, Pauses: c.Pauses + d.Pauses,
		Up: c.Up + d.Up, Down: c.Down + d.Down, Swallowed: c.Swallowed + d.Swallowed,
	}
}

func (c Counts) String() string {
	return fmt.Sprintf("%d connections (%d unreachable): %d cut, %d reset, %d half-closed, %d black holes; %d splits, %d delays, %d stalls, %d pauses; %d bytes up, %d down, %d swallowed",
		c.Connections, c.Unreachable, c.Cuts, c.Resets, c.HalfCloses, c.BlackHoles,
		c.Splits, c.Delays, c.Stalls, c.Pauses, c.Up, c.Down, c.Swallowed)
}
