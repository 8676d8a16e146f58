package chaos_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-mesh/parley/test/chaos"
)

// destination accepts connections and hands them over.
func destination(t *testing.T) (addr string, accepted <-chan *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *net.TCPConn)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case ch <- c.(*net.TCPConn):
			case <-stop:
				_ = c.Close()
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String(), ch
}

// through is a connection through a proxy: its two ends, and what the proxy says of
// it when it has ended.
func through(t *testing.T, cfg chaos.Config) (p *chaos.Proxy, near, far *net.TCPConn, ended <-chan chaos.Record) {
	t.Helper()
	addr, accepted := destination(t)
	records := make(chan chaos.Record, 1)
	cfg.Target = addr
	cfg.Ended = func(r chaos.Record) { records <- r }
	p = listen(t, cfg)
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	near, far = c.(*net.TCPConn), await(t, "the connection arrives", accepted)
	for _, c := range []*net.TCPConn{near, far} {
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = c.Close() })
	}
	return p, near, far, records
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

// However it delays, stalls and splits, a proxy delivers all bytes, in both directions,
// and the end after them.
func TestProxyIsFaithful(t *testing.T) {
	for name, plan := range map[string]chaos.Plan{"plain": {}, "slow": {
		Split: 1, Delay: 0.3, Stall: 0.3, MaxDelay: time.Millisecond, MaxStall: time.Millisecond,
	}} {
		t.Run(name, func(t *testing.T) {
			p, near, far, ended := through(t, chaos.Config{Seed: chaos.Seed(t), Plan: plan, Buffer: 128 << 10})
			up, down := noise(1<<20), noise(700_000)
			var wg sync.WaitGroup
			say := func(c *net.TCPConn, b []byte) {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
				}
				_ = c.CloseWrite()
			}
			hear := func(c *net.TCPConn, want []byte) {
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes are not the %d that were sent, or %v", len(got), len(want), err)
				}
			}
			wg.Go(func() { say(near, up) })
			wg.Go(func() { say(far, down) })
			wg.Go(func() { hear(far, up) })
			wg.Go(func() { hear(near, down) })
			wg.Wait()
			want := chaos.Record{Number: 1, Up: chaos.Flow{Read: 1 << 20, Written: 1 << 20}, Down: chaos.Flow{Read: 700_000, Written: 700_000}}
			if got := await(t, "the end", ended); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			c := p.Counts()
			if name == "slow" && (c.Splits == 0 || c.Delays == 0 || c.Stalls == 0) {
				t.Errorf("nothing happened: %v", c)
			}
			if c.Connections != 1 || c.Up != 1<<20 || c.Down != 700_000 || c.Broken() != 0 || c.Swallowed != 0 {
				t.Errorf("%v", c)
			}
		})
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.Errno(10054)) // on Windows
}

// Each fault at a random byte: what arrives is a beginning of what was sent, both ends
// see an end, and all is counted.
func TestProxyFaults(t *testing.T) {
	const size = 1 << 20
	seed := chaos.Seed(t)
	tests := []struct {
		fault chaos.Fault
		plan  chaos.Plan
		count func(chaos.Counts) int64
	}{
		{chaos.Cut, chaos.Plan{Cut: 1}, func(c chaos.Counts) int64 { return c.Cuts }},
		{chaos.Reset, chaos.Plan{Reset: 1}, func(c chaos.Counts) int64 { return c.Resets }},
		{chaos.HalfClose, chaos.Plan{HalfClose: 1}, func(c chaos.Counts) int64 { return c.HalfCloses }},
		{chaos.BlackHole, chaos.Plan{BlackHole: 1}, func(c chaos.Counts) int64 { return c.BlackHoles }},
	}
	for _, tt := range tests {
		t.Run(tt.fault.String(), func(t *testing.T) {
			places := make(map[[2]int64]bool)
			for i := range uint64(12) {
				plan := tt.plan
				plan.MaxBytes, plan.MaxLife, plan.MaxHole = size/2, time.Hour, 10*time.Millisecond
				p, near, far, ended := through(t, chaos.Config{Seed: seed + i, Plan: plan})
				sent := noise(size)
				var wg sync.WaitGroup
				for _, c := range []*net.TCPConn{near, far} {
					wg.Go(func() {
						wrote := make(chan error)
						go func() {
							_, err := c.Write(sent)
							wrote <- errors.Join(err, c.CloseWrite())
						}()
						got, err := io.ReadAll(c)
						if !bytes.HasPrefix(sent, got) {
							t.Errorf("%d bytes are not the beginning of what was sent", len(got))
						}
						// How the system tells of the end depends on what was under way.
						if err = errors.Join(err, <-wrote); errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("there was no end: %v", err)
						}
					})
				}
				wg.Wait()
				r := await(t, "the end", ended)
				if r.Ended != tt.fault || tt.count(p.Counts()) != 1 || p.Counts().Broken() != 1 {
					t.Errorf("%+v and %v, want one %v", r, p.Counts(), tt.fault)
				}
				if r.Up.Written == size && r.Down.Written == size {
					t.Errorf("%+v came through whole", r)
				}
				places[[2]int64{r.Up.Written, r.Down.Written}] = true
			}
			if len(places) < 9 {
				t.Errorf("fate struck at %d different places only, of 12", len(places))
			}
		})
	}
}

// The clock strikes where nothing is said.
func TestProxyFaultByTheClock(t *testing.T) {
	for fault, plan := range map[chaos.Fault]chaos.Plan{chaos.Cut: {Cut: 1}, chaos.BlackHole: {BlackHole: 1}, chaos.Reset: {Reset: 1}} {
		plan.MaxBytes, plan.MaxLife, plan.MaxHole = 1<<40, 20*time.Millisecond, 20*time.Millisecond
		_, near, far, ended := through(t, chaos.Config{Seed: chaos.Seed(t), Plan: plan})
		for _, c := range []*net.TCPConn{near, far} {
			if _, err := c.Read(make([]byte, 1)); isReset(err) != (fault == chaos.Reset) || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v: the end was %v", fault, err)
			}
		}
		if r := await(t, "the end", ended); r.Ended != fault {
			t.Errorf("%+v, want %v", r, fault)
		}
	}
}

// The same seed brings the same fate to the same connection.
func TestProxySeed(t *testing.T) {
	const size = 1 << 20
	written := func(seed uint64) (all []int64) {
		addr, accepted := destination(t)
		records := make(chan chaos.Record, 1)
		p := listen(t, chaos.Config{Target: addr, Seed: seed, Ended: func(r chaos.Record) { records <- r },
			Plan: chaos.Plan{Cut: 1, MaxBytes: size, MaxLife: time.Hour}})
		for range 5 {
			near, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			far := await(t, "the connection arrives", accepted)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = near.Write(noise(2 * size)) })
			wg.Go(func() { _, _ = far.Write(noise(2 * size)) })
			wg.Go(func() { _, _ = io.Copy(io.Discard, near) })
			wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
			r := await(t, "the end", records)
			wg.Wait()
			_, _ = near.Close(), far.Close()
			all = append(all, r.Up.Written, r.Down.Written)
		}
		return all
	}
	// In one of the two directions the cut is at the byte that the seed says; how
	// far the other came is up to the machine.
	a, b := written(7), written(7)
	for i := 0; i < len(a); i += 2 {
		if a[i] != b[i] && a[i+1] != b[i+1] {
			t.Errorf("connection %d: %d up and %d down, then %d and %d", i/2+1, a[i], a[i+1], b[i], b[i+1])
		}
	}
	if slices.Equal(a, written(8)) {
		t.Error("another seed has the same fate")
	}
}

func TestProxyPause(t *testing.T) {
	p, near, far, _ := through(t, chaos.Config{})
	p.Pause()
	p.Pause()
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = far.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := far.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came through", n)
	}
	p.Resume()
	p.Resume()
	_ = far.SetReadDeadline(time.Now().Add(patience))
	if n, err := far.Read(make([]byte, 1)); n != 1 {
		t.Errorf("nothing came through: %v", err)
	}
	eventually(t, "all is counted", func() bool { c := p.Counts(); return c.Pauses == 1 && c.Up == 1 })
	p.Pause()
	p.Close() // waits for goroutines that wait for Resume
}

func TestProxyEndAll(t *testing.T) {
	p, near, far, ended := through(t, chaos.Config{})
	eventually(t, "the connection is cut", func() bool { return p.CutAll() == 1 })
	for _, c := range []*net.TCPConn{near, far} {
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("cut: %v", err)
		}
	}
	if r := await(t, "the end", ended); r.Ended != chaos.Cut || p.CutAll() != 0 {
		t.Errorf("%+v", r)
	}
	p, near, far, ended = through(t, chaos.Config{})
	eventually(t, "the connection is reset", func() bool { return p.ResetAll() == 1 })
	for _, c := range []*net.TCPConn{near, far} {
		if _, err := io.ReadAll(c); !isReset(err) {
			t.Errorf("reset: %v", err)
		}
	}
	if r := await(t, "the end", ended); r.Ended != chaos.Reset || p.Counts().Resets != 1 {
		t.Errorf("%+v", r)
	}
}

// A reset by one end is one for the other end.
func TestProxyPassesResets(t *testing.T) {
	_, near, far, ended := through(t, chaos.Config{})
	_ = near.SetLinger(0)
	_ = near.Close()
	if _, err := io.ReadAll(far); !isReset(err) {
		t.Errorf("the end was %v", err)
	}
	if r := await(t, "the end", ended); r.Ended != chaos.Broken {
		t.Errorf("%+v", r)
	}
}

func TestProxyWithoutTarget(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	records := make(chan chaos.Record, 1)
	p := listen(t, chaos.Config{Target: ln.Addr().String(), Ended: func(r chaos.Record) { records <- r }})
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end was %v", err)
	}
	if r := await(t, "the end", records); r.Ended != chaos.Unreachable || p.Counts().Unreachable != 1 {
		t.Errorf("%+v", r)
	}
}
