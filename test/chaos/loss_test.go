package chaos_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	_ "go.nanomsg.org/mangos/v3/transport/tcp"

	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/test/chaos"
)

// loss is what one cut cost.
type loss struct {
	messages, bytes int // accepted, not reported, and not received; with their lengths
	through         int // received in all
}

// trial is how one connection is treated.
type trial struct {
	size    int  // of its messages, bytes
	pressed bool // the receiver does not read before the cut, so that all sockets are full
	reset   bool
}

func (tr trial) String() string {
	s := fmt.Sprintf("%d B", tr.size)
	if tr.pressed {
		s += ", pressed"
	}
	if tr.reset {
		return s + ", reset"
	}
	return s + ", cut"
}

// cut lets messages flow, and cuts.
func (tr trial) cut(t *testing.T, proxy *chaos.Proxy) {
	begin := proxy.Counts().Up
	eventually(t, "messages flow", func() bool { return proxy.Counts().Up > begin+64<<10 })
	if tr.pressed {
		proxy.Pause()
		last, since := proxy.Counts(), time.Now()
		for time.Since(since) < 30*time.Millisecond { // what came before the pause is through
			if now := proxy.Counts(); now != last {
				last, since = now, time.Now()
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(30 * time.Millisecond) // for the senders to fill everything up
	}
	if tr.reset {
		proxy.ResetAll()
	} else {
		proxy.CutAll()
	}
	proxy.Resume()
}

// ofOurs is what a Pusher loses.
func (tr trial) ofOurs(t *testing.T) (l loss) {
	var received atomic.Int64
	puller, err := sp.ListenPuller("tcp://127.0.0.1:0", func(context.Context, sp.Inbound) { received.Add(1) }, sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer puller.Close()
	proxy := listen(t, chaos.Config{Target: target(puller.URL()), Buffer: socketBuffer})
	p, err := sp.DialPusher(within(t, patience), "tcp://"+proxy.Addr(), sp.Config{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var sent int
	var wg sync.WaitGroup
	wg.Go(func() {
		body := make([]byte, tr.size)
		for p.Send(context.Background(), body) == nil {
			sent++
		}
	})
	tr.cut(t, proxy)
	wg.Wait()
	_ = p.Close()
	reported := len(p.Unsent())
	eventually(t, "the puller is done with the connection", func() bool {
		st := puller.Stats()
		return st.Pipes == 0 && st.Pending == 0
	})
	l.through = int(received.Load())
	l.messages = sent - l.through - reported
	l.bytes = l.messages * (tr.size + lengthSize)
	return l
}

// ofStock is what stock mangos loses. It reconnects by itself, and then brings what
// it still has; the last message says that this was all.
func (tr trial) ofStock(t *testing.T) (l loss) {
	open := func(s mangos.Socket, err error) mangos.Socket {
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	in, out := open(pull.NewSocket()), open(push.NewSocket())
	defer in.Close()
	defer out.Close()
	listener, err := in.NewListener("tcp://127.0.0.1:0", nil)
	if err == nil {
		err = listener.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	proxy := listen(t, chaos.Config{Target: target(listener.Address()), Buffer: socketBuffer})
	if err := out.Dial("tcp://" + proxy.Addr()); err != nil {
		t.Fatal(err)
	}
	var sent, received int
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for { // a body is the number of messages before it, or 0 for the last
			b, err := in.Recv()
			if err != nil || binary.BigEndian.Uint64(b) == 0 {
				return
			}
			received++
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			body := make([]byte, tr.size)
			binary.BigEndian.PutUint64(body, uint64(sent)+1)
			if out.Send(body) != nil {
				return
			}
			sent++
		}
		_ = out.Send(make([]byte, tr.size))
	}()
	tr.cut(t, proxy)
	// On its next connection, so that all has come through there that it still had.
	before := proxy.Counts()
	eventually(t, "stock mangos is back", func() bool {
		now := proxy.Counts()
		return now.Connections > 1 && now.Up > before.Up+64<<10
	})
	stop.Store(true)
	await(t, "stock mangos has sent the last", done)
	wg.Wait()
	l.through = received
	l.messages = sent - received
	l.bytes = l.messages * (tr.size + lengthSize)
	return l
}

// What was written and is lost with a connection is what the sockets held, with us as
// with stock mangos, however fast we are.
func TestLossPerCut(t *testing.T) {
	trials := []trial{{size: 64}, {size: 64, reset: true}, {size: 64, pressed: true}, {size: 1024}, {size: 1024, reset: true}, {size: 1024, pressed: true}}
	rounds := max(1, int(chaos.Time(t, 2*time.Second)/(2*time.Second)))
	ours, stock := make([][]loss, len(trials)), make([][]loss, len(trials))
	for range rounds {
		for i, tr := range trials {
			ours[i] = append(ours[i], tr.ofOurs(t))
			stock[i] = append(stock[i], tr.ofStock(t))
		}
	}
	for i, tr := range trials {
		for who, all := range map[string][]loss{"ours": ours[i], "stock": stock[i]} {
			slices.SortFunc(all, func(a, b loss) int { return a.bytes - b.bytes })
			median, worst := all[len(all)/2], all[len(all)-1]
			t.Logf("%-22v %-5s lost per connection: median %7d messages %8d bytes, at most %8d bytes (%d came through)",
				tr, who, median.messages, median.bytes, worst.bytes, median.through)
			if most := held(); who == "ours" && most > 0 && worst.bytes > most {
				t.Errorf("%v: %d bytes were lost, more than sockets hold (%d)", tr, worst.bytes, most)
			}
			if all[0].messages < 0 {
				t.Errorf("%v, %s: more came than was sent: %+v", tr, who, all[0])
			}
			if median.through == 0 {
				t.Errorf("%v, %s: nothing came through", tr, who)
			}
		}
	}
}
