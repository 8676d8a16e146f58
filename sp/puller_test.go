package sp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

func TestPullerKeepsOrder(t *testing.T) {
	const peers, each = 4, 2000
	var mu sync.Mutex
	next := map[string]uint32{}
	var busy sync.Map
	pull := newPuller(t, func(_ context.Context, in sp.Inbound) {
		from := in.Remote.String()
		if _, twice := busy.LoadOrStore(from, true); twice {
			t.Error("two messages of one connection at once")
		}
		defer busy.Delete(from)
		mu.Lock()
		defer mu.Unlock()
		if n := binary.BigEndian.Uint32(in.Body); n != next[from] {
			t.Errorf("%s: %d after %d", from, n, next[from])
		}
		next[from]++
	}, sp.Config{})
	var wg sync.WaitGroup
	for range peers {
		wg.Go(func() {
			push := newPusher(t, pull.URL(), sp.Config{})
			for i := range uint32(each) {
				if err := push.Send(within(t, soon), binary.BigEndian.AppendUint32(nil, i)); err != nil {
					t.Error(err)
					return
				}
			}
			if err := push.Drain(within(t, soon)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, "all are handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		sum := 0
		for _, n := range next {
			sum += int(n)
		}
		return sum == peers*each && len(next) == peers
	})
}

// A handler that hangs on one connection's message stops the reading of that
// connection, whose sender waits; memory stays bounded and the others go on.
func TestPullerBackPressure(t *testing.T) {
	release := make(chan struct{})
	var quick atomic.Int64
	pull := newPuller(t, func(_ context.Context, in sp.Inbound) {
		if in.Body[0] == 's' {
			<-release
			return
		}
		quick.Add(1)
	}, sp.Config{QueueBytes: 1 << 20})
	base := heap()

	slow := newPusher(t, pull.URL(), sp.Config{QueueBytes: 1 << 20})
	body := make([]byte, 64<<10)
	body[0] = 's'
	stop, cancel := context.WithCancel(context.Background())
	sent := atomic.Int64{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for slow.Send(stop, body) == nil {
			sent.Add(1)
		}
	})
	eventually(t, "the sender has to wait", func() bool {
		before := sent.Load()
		for range 100 {
			if _, b := slow.Queued(); b < 1<<20-64<<10-10000 || sent.Load() != before {
				return false
			}
		}
		return true
	})
	other := newPusher(t, pull.URL(), sp.Config{})
	for range 1000 {
		if err := other.Send(within(t, soon), []byte("quick")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the other's are handled", func() bool { return quick.Load() == 1000 })
	if grown := heap() - base; grown > 8<<20 {
		t.Errorf("%d bytes more in memory", grown)
	}
	if st := pull.Stats(); st.Handling > 1+(1<<20)/(64<<10) {
		t.Errorf("%+v", st)
	}
	cancel()
	wg.Wait()
	close(release)
	eventually(t, "all that was sent is handled", func() bool {
		st := pull.Stats()
		return st.Handling == 0 && st.MessagesIn == uint64(sent.Load())+1000
	})
}

// What was received is handled, though its sender has gone; its place is taken
// until then.
func TestPullerHandsOverAfterTheEnd(t *testing.T) {
	const n = 100
	release := make(chan struct{})
	var handled atomic.Int64
	pull := newPuller(t, func(ctx context.Context, in sp.Inbound) {
		<-release
		if ctx.Err() != nil {
			t.Error("the context ended with the connection")
		}
		handled.Add(1)
	}, sp.Config{})
	push := newPusher(t, pull.URL(), sp.Config{})
	for i := range n {
		if err := push.Send(within(t, soon), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := push.Drain(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	_ = push.Close()
	eventually(t, "the first is being handled", func() bool { st := pull.Stats(); return st.Handling == 1 && st.Pipes == 1 })
	close(release)
	eventually(t, "all are handled", func() bool { return handled.Load() == n && pull.Stats().Pipes == 0 })
}

// A peer that ends in good order hears our end when its last message is handled.
func TestPullerEndsAfterTheLastMessage(t *testing.T) {
	const n = 20
	var handled atomic.Int64
	pull := newPuller(t, func(context.Context, sp.Inbound) {
		time.Sleep(time.Millisecond) // it is slow
		handled.Add(1)
	}, sp.Config{})
	c := dialRaw(t, pull.URL(), protoPush)
	for range n {
		c.send(frame([]byte("x")))
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if err := c.ended(); err != nil {
		t.Error(err)
	}
	if handled.Load() != n {
		t.Errorf("ended when %d of %d were handled", handled.Load(), n)
	}
	eventually(t, "its place is free", func() bool { return pull.Stats().Pipes == 0 })
}

// A handler may end its goroutine, as t.FailNow does; the next message has another.
func TestPullerHandlerEndsItsGoroutine(t *testing.T) {
	const n = 10
	var handled atomic.Int64
	pull := newPuller(t, func(context.Context, sp.Inbound) {
		handled.Add(1)
		runtime.Goexit()
	}, sp.Config{QueueBytes: 1}) // one at a time
	push := newPusher(t, pull.URL(), sp.Config{})
	for range n {
		if err := push.Send(within(t, soon), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are handled", func() bool { return handled.Load() == n && pull.Stats().Handling == 0 })
	if err := push.Shutdown(within(t, soon)); err != nil {
		t.Error(err)
	}
}

func TestPullerCloseDropsAndCounts(t *testing.T) {
	const n = 10
	first := make(chan struct{}, 1)
	var handled atomic.Int64
	pull := newPuller(t, func(ctx context.Context, _ sp.Inbound) {
		handled.Add(1)
		first <- struct{}{}
		<-ctx.Done()
	}, sp.Config{})
	c := dialRaw(t, pull.URL(), protoPush)
	c.send(bytes.Repeat(frame([]byte("x")), n))
	<-first
	_ = pull.Close()
	if st := pull.Stats(); handled.Load() != 1 || st.Dropped != n-1 || st.MessagesIn != n || st.Handling != 0 {
		t.Errorf("%d handled, %+v", handled.Load(), st)
	}
	_ = c.ended()
}

func TestPullerShutdownHandlesWhatWasSent(t *testing.T) {
	const n = 50
	release := make(chan struct{})
	var handled atomic.Int64
	pull := newPuller(t, func(ctx context.Context, _ sp.Inbound) {
		<-release
		if ctx.Err() != nil {
			t.Error("the context ended before the handler")
		}
		handled.Add(1)
	}, sp.Config{})
	c := dialRaw(t, pull.URL(), protoPush)
	c.send(bytes.Repeat(frame([]byte("x")), n))
	eventually(t, "the first is being handled", func() bool { return pull.Stats().Handling == 1 })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := pull.Shutdown(within(t, soon)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "nobody is accepted", func() bool {
		late, err := net.Dial("tcp", strings.TrimPrefix(pull.URL(), "tcp://"))
		if err == nil {
			_ = late.Close()
		}
		return err != nil
	})
	c.send(frame([]byte("just in time")))
	close(release)
	_ = c.ended()
	_ = c.Close()
	wg.Wait()
	if st := pull.Stats(); handled.Load() != n+1 || st.MessagesIn != n+1 || st.Dropped != 0 {
		t.Errorf("%d handled of %d, %+v", handled.Load(), n+1, st)
	}
}

func TestPullerTooLarge(t *testing.T) {
	var handled atomic.Int64
	pull := newPuller(t, func(context.Context, sp.Inbound) { handled.Add(1) }, sp.Config{MaxMessage: 1000})
	c := dialRaw(t, pull.URL(), protoPush)
	c.send(frame(make([]byte, 1000)))
	c.send(frame(make([]byte, 1001)))
	_ = c.ended()
	eventually(t, "counted", func() bool { st := pull.Stats(); return st.TooLarge == 1 && st.Pipes == 0 })
	if handled.Load() != 1 {
		t.Errorf("%d handled", handled.Load())
	}
}
