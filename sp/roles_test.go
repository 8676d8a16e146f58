package sp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// rounds is n, or a multiple of it for a longer run.
func rounds(n int) int {
	if k, err := strconv.Atoi(os.Getenv("SP_TEST_ROUNDS")); err == nil && k > 0 {
		return n * k
	}
	return n
}

// question is a request that its reply can be told by: what it asks for, a number and
// some bytes that follow from it.
func question(kind byte, n uint64, size int) []byte {
	b := binary.BigEndian.AppendUint64([]byte{kind}, n)
	for i := len(b); i < size; i++ {
		b = append(b, byte(n)+byte(i)*7)
	}
	return b
}

func sizeOf(r *rand.Rand) int {
	switch r.IntN(20) {
	case 0:
		return 16<<10 - 20 + r.IntN(40)
	case 1:
		return r.IntN(100_000)
	}
	return r.IntN(400)
}

// Kinds of requests.
const (
	asks      = 'a' // for its reply
	asksTwice = '2' // and gets it twice
	asksLate  = 'l' // and gets it after others
	asksVain  = 'v' // and gets none
)

// moody answers requests out of order, some twice and some not at all, and says what
// nobody asked for.
func moody(t *testing.T, ln *rawListener, over <-chan struct{}) {
	c := ln.accept(protoRep)
	if c == nil {
		return
	}
	var mu sync.Mutex // of writing and held
	var held [][]byte
	r := rand.New(rand.NewPCG(11, 12))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { // what is held leaves, also when no more comes
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-over:
				return
			}
			mu.Lock()
			var out []byte
			for range len(held) {
				i := r.IntN(len(held))
				out = append(out, frame(held[i])...)
				held[i] = held[len(held)-1]
				held = held[:len(held)-1]
				if r.IntN(3) == 0 {
					break
				}
			}
			_, err := c.Write(out)
			mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	for {
		b, err := c.recv()
		if err != nil {
			return
		}
		if len(b) < 13 {
			t.Errorf("a request of %d bytes", len(b))
			return
		}
		mu.Lock()
		var out []byte
		switch b[4] {
		case asksLate:
			held = append(held, b)
		case asksVain:
		case asksTwice:
			out = append(frame(b), frame(b)...)
		default:
			out = frame(b)
		}
		if r.IntN(10) == 0 { // for nobody: an id that was not, or is not yet
			stray := bytes.Clone(b[:4])
			binary.BigEndian.PutUint32(stray, (binary.BigEndian.Uint32(b)+1000+r.Uint32N(1<<30))|1<<31)
			out = append(out, frame(stray, []byte("stray"))...)
		}
		if r.IntN(5) > 0 {
			_, err = c.Write(out)
		} else {
			for len(out) > 0 && err == nil { // in pieces
				n := 1 + r.IntN(len(out))
				_, err = c.Write(out[:n])
				out = out[n:]
			}
		}
		mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Every call has its own reply or a true error, whoever reads, whatever ends, and in
// whatever order the replies come.
func TestRequesterUnderStress(t *testing.T) {
	for _, inFlight := range []int{1, 5, 256} {
		t.Run(fmt.Sprint(inFlight), func(t *testing.T) { requesterUnderStress(t, inFlight) })
	}
}

func requesterUnderStress(t *testing.T, inFlight int) {
	goroutines := runtime.NumGoroutine()
	ln := listenRaw(t)
	over := make(chan struct{})
	var peer sync.WaitGroup
	peer.Go(func() { moody(t, ln, over) })
	req, err := sp.DialRequester(within(t, soon), ln.url(), quiet(sp.Config{InFlight: inFlight}))
	if err != nil {
		t.Fatal(err)
	}
	shared, endShared := context.WithCancel(t.Context())
	defer endShared()
	var number atomic.Uint64
	var answered, ended atomic.Int64
	ask := func(r *rand.Rand) {
		kind := byte(asks)
		switch r.IntN(10) {
		case 0:
			kind = asksTwice
		case 1, 2, 3:
			kind = asksLate
		case 4:
			kind = asksVain
		}
		n := number.Add(1)
		body := question(kind, n, sizeOf(r))
		x := &sp.Exchange{Body: bytes.Clone(body)}
		if r.IntN(2) == 0 {
			k := r.IntN(min(len(body), 1000) + 1)
			x.Head, x.Body = x.Body[:k:k], x.Body[k:]
		}
		want := body
		switch r.IntN(3) {
		case 0:
			x.Reply = []byte("before")
			want = append([]byte("before"), body...)
		case 1:
			x.Reply = make([]byte, 0, 2000)
		}
		ctx, cancel := shared, context.CancelFunc(func() {})
		how := r.IntN(4)
		if kind == asksVain && how == 0 {
			how = 1 + r.IntN(3)
		}
		patience := time.Duration(1+r.IntN(3000)) * time.Microsecond
		switch how {
		case 1:
			x.Deadline = time.Now().Add(patience)
		case 2:
			ctx, cancel = context.WithTimeout(shared, patience)
		case 3:
			ctx, cancel = context.WithCancel(context.Background())
			time.AfterFunc(patience, cancel)
		}
		err := req.Do(ctx, x)
		switch {
		case err == nil && bytes.Equal(x.Reply, want):
			answered.Add(1)
		case err == nil:
			t.Errorf("request %d, %c: another's reply, of %d bytes, want %d", n, kind, len(x.Reply), len(want))
		case (how == 1 || how == 2) && errors.Is(err, context.DeadlineExceeded), how == 3 && errors.Is(err, context.Canceled):
			ended.Add(1)
			if errors.Is(err, sp.ErrConnectionLost) {
				t.Errorf("request %d: %v", n, err)
			}
			if early := time.Until(x.Deadline); how == 1 && early > 0 {
				t.Errorf("request %d: %v before its deadline: %v", n, early, err)
			}
		default:
			t.Errorf("request %d, %c, %d: %v", n, kind, how, err)
		}
		cancel()
		for i := range x.Head {
			x.Head[i] = 0xAA
		}
		for i := range x.Body {
			x.Body[i] = 0xAA
		}
	}
	for round := range rounds(8) {
		r := rand.New(rand.NewPCG(uint64(round), 0))
		for range r.IntN(30) { // alone
			ask(r)
		}
		if r.IntN(3) == 0 {
			time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond) // until nobody reads
		}
		var wg sync.WaitGroup
		for g := range 1 + r.IntN(16) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(1+g)))
				for range r.IntN(30) {
					ask(r)
				}
			})
		}
		wg.Wait()
		if n := req.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	}
	if answered.Load() == 0 || ended.Load() == 0 {
		t.Errorf("%d answered, %d ended", answered.Load(), ended.Load())
	}
	select {
	case <-req.Done():
		t.Error("the connection has ended")
	default:
	}
	_ = req.Close()
	close(over)
	peer.Wait()
	eventually(t, "its goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// A caller that has its reply has another goroutine read on for those who wait, and at
// once: not only when it is noticed that nobody does.
func TestRequesterPassesReading(t *testing.T) {
	ln := listenRaw(t)
	answer := make(chan int)
	var answered atomic.Int64
	var peer sync.WaitGroup
	began := time.Now()
	peer.Go(func() {
		c := ln.accept(protoRep)
		if c == nil {
			return
		}
		requests := make(chan []byte)
		peer.Go(func() {
			defer close(requests)
			for {
				b, err := c.recv()
				if err != nil {
					return
				}
				requests <- b
			}
		})
		var held [][]byte
		for {
			select {
			case b, ok := <-requests:
				if !ok {
					return
				}
				held = append(held, b)
				answer <- len(held)
			case <-answer:
				answered.Store(int64(time.Since(began)))
				c.send(frame(held[0]))
				held = held[1:]
			}
		}
	})
	req := newRequester(t, ln.url(), sp.Config{})
	var took []time.Duration
	for range 30 {
		done := make(chan error, 2)
		for n := range 2 {
			go func() {
				_, err := req.Request(within(t, soon), []byte{byte(n)})
				done <- err
			}()
			if held := <-answer; held != n+1 {
				t.Fatalf("%d requests are there", held)
			}
		}
		for range 2 {
			answer <- 1
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		took = append(took, time.Since(began)-time.Duration(answered.Load()))
		time.Sleep(time.Millisecond) // nobody reads by now, mostly, and the first of the next round will
	}
	_ = req.Close()
	peer.Wait()
	slices.Sort(took)
	if middle := took[len(took)/2]; middle > 40*time.Millisecond {
		t.Errorf("it takes %v", middle)
	}
}

// The end of a connection is told to every call, with what is true of it, also to those
// who wait for their turn.
func TestRequesterEndsUnderStress(t *testing.T) {
	for round := range rounds(15) {
		ln := listenRaw(t)
		r := rand.New(rand.NewPCG(uint64(round), 77))
		seen := make(map[uint64]bool) // read by the peer
		after := r.IntN(200)
		weEnd := round%3 == 0 // or else the peer does
		ends := func(err error) {
			if !weEnd {
				t.Error(err)
			}
		}
		var peer sync.WaitGroup
		peer.Go(func() {
			c := ln.accept(protoRep)
			if c == nil {
				return
			}
			defer c.Close()
			for range after {
				b, err := c.recv()
				if err != nil {
					ends(err)
					return
				}
				seen[binary.BigEndian.Uint64(b[5:])] = true
				if b[4] == asks {
					if _, err := c.Write(frame(b)); err != nil {
						ends(err)
						return
					}
				}
			}
		})
		req := newRequester(t, ln.url(), sp.Config{InFlight: 8})
		var mu sync.Mutex
		var number uint64
		notSent := make(map[uint64]bool)
		var wg sync.WaitGroup
		for g := range 12 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(g)))
				for {
					mu.Lock()
					number++
					n := number
					mu.Unlock()
					kind := byte(asks)
					if r.IntN(200) == 0 {
						kind = asksVain
					}
					body := question(kind, n, sizeOf(r))
					ctx, cancel := context.WithTimeout(t.Context(), soon)
					if kind == asksVain {
						ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
					}
					reply, err := req.Request(ctx, body)
					cancel()
					switch {
					case err == nil && bytes.Equal(reply, body):
					case err == nil:
						t.Errorf("request %d: another's reply", n)
					case errors.Is(err, sp.ErrNotSent):
						mu.Lock()
						notSent[n] = true
						mu.Unlock()
						if errors.Is(err, sp.ErrConnectionLost) {
							t.Error(err)
						}
						if !errors.Is(err, context.DeadlineExceeded) {
							return
						}
					case errors.Is(err, sp.ErrConnectionLost):
						return
					case kind == asksVain && errors.Is(err, context.DeadlineExceeded):
					default:
						t.Errorf("request %d: %v", n, err)
						return
					}
				}
			})
		}
		if weEnd {
			time.AfterFunc(time.Duration(r.IntN(5000))*time.Microsecond, func() { _ = req.Close() })
		}
		wg.Wait()
		_ = req.Close()
		peer.Wait()
		for n := range notSent {
			if seen[n] {
				t.Errorf("request %d was not sent, and the peer has seen it", n)
			}
		}
		if n := req.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	}
}

// Handlers that are quick and slow, end their goroutines and use each other's memory if
// they can: every reply is the one to its request.
func TestReplierUnderStress(t *testing.T) {
	for _, callers := range []int{1, 12} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) { replierUnderStress(t, callers) })
	}
}

// Kinds of handlers.
const (
	byBody    = iota // replies with its Body
	byPart           // with a part of it, changed
	byScratch        // with its Scratch
	byCopy
	byTake
	byNothing // does not reply
	byGoexit
	handlers
)

func replierUnderStress(t *testing.T, callers int) {
	var slowness atomic.Int32 // one in so many handlers is slow
	slowness.Store(1 << 20)
	var count atomic.Int32
	var wrong atomic.Pointer[string]
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		kind := in.Body[0]
		before := bytes.Clone(in.Body)
		if n := count.Add(1); n%slowness.Load() == 0 {
			// Some end at the very moment when another goroutine takes over.
			time.Sleep(time.Duration(500+100*(n%20)) * time.Microsecond)
		}
		if len(in.Scratch) != 0 || !bytes.Equal(before, in.Body) {
			text := fmt.Sprintf("its body changed under a handler of kind %d", kind)
			wrong.Store(&text)
		}
		switch kind {
		case byPart:
			for i := range in.Body {
				in.Body[i]++
			}
			return in.Body[1:]
		case byScratch:
			return append(append(in.Scratch, 's'), in.Body...)
		case byCopy:
			return before
		case byTake:
			b := in.Take()
			go func() { // it is ours for good
				runtime.Gosched()
				if !bytes.Equal(b, before) {
					text := "what was taken changed"
					wrong.Store(&text)
				}
			}()
			return before
		case byNothing:
			return nil
		case byGoexit:
			runtime.Goexit()
		}
		return in.Body
	}, sp.Config{InFlight: 8})
	want := func(body []byte) []byte {
		switch body[0] {
		case byPart:
			b := bytes.Clone(body[1:])
			for i := range b {
				b[i]++
			}
			return b
		case byScratch:
			return append([]byte("s"), body...)
		}
		return body
	}
	req := newRequester(t, rep.URL(), sp.Config{})
	var number atomic.Uint64
	for round := range rounds(6) {
		slowness.Store([]int32{1 << 20, 50, 3, 1, 10, 200}[round%6])
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(c)))
				for range 60 {
					kind := byte(r.IntN(handlers))
					if kind >= byNothing && r.IntN(4) > 0 {
						kind -= byNothing
					}
					body := question(kind, number.Add(1), sizeOf(r))
					x := &sp.Exchange{Body: body, Deadline: time.Now().Add(soon)}
					if kind >= byNothing {
						x.Deadline = time.Now().Add(2 * time.Millisecond)
					}
					err := req.Do(context.Background(), x)
					switch {
					case kind >= byNothing:
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("kind %d: %v", kind, err)
						}
					case err != nil:
						t.Errorf("kind %d: %v", kind, err)
					case !bytes.Equal(x.Reply, want(body)):
						t.Errorf("kind %d: a reply of %d bytes, want %d", kind, len(x.Reply), len(want(body)))
					}
				}
			})
		}
		wg.Wait()
	}
	eventually(t, "all is handled", func() bool { return rep.Stats().Handling == 0 })
	_ = req.Close()
	if err := rep.Shutdown(within(t, soon)); err != nil {
		t.Error(err)
	}
	if text := wrong.Load(); text != nil {
		t.Error(*text)
	}
	if st := rep.Stats(); st.Dropped != 0 || st.Malformed != 0 {
		t.Errorf("%+v", st)
	}
}
