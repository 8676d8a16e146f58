package sp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// memConn is a connection whose peer has said all it will say.
type memConn struct {
	net.Conn // deadlines and addresses below
	in       io.Reader
	out      bytes.Buffer
}

func (c *memConn) Read(b []byte) (int, error)     { return c.in.Read(b) }
func (c *memConn) Write(b []byte) (int, error)    { return c.out.Write(b) }
func (*memConn) SetReadDeadline(time.Time) error  { return nil }
func (*memConn) SetWriteDeadline(time.Time) error { return nil }
func (*memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*memConn) Close() error                     { return nil }

func memPipe(in io.Reader, maxFrame int) (*pipe, *memConn) {
	c := &memConn{in: in}
	set := &settings{maxFrame: maxFrame, queueBytes: 64 << 20, stallTimeout: time.Minute, stats: &counters{}, log: newLogger(slog.New(slog.DiscardHandler))}
	return newPipe(c, peerInfo{}, set, nil), c
}

// outgoing is a message as a protocol of mangos would send it.
func outgoing(header, body []byte) *mangos.Message {
	m := mangos.NewMessage(0)
	m.Header = append(m.Header, header...)
	m.Body = body
	return m
}

func frameOf(body []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(body))), body...)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// Sizes around every step of the reader and writer, through bytes on a wire.
func TestPipeFrames(t *testing.T) {
	const limit = 1 << 20
	var sizes []int
	for _, n := range []int{0, inPlace - lengthSize, inPlace, chunkSize - lengthSize, stallStep, 2 * stallStep, 1 << 18, limit} {
		sizes = append(sizes, max(0, n-1), n)
		if n < limit {
			sizes = append(sizes, n+1)
		}
	}
	out, wire := memPipe(nil, limit)
	for _, n := range sizes {
		body := pattern(n)
		if err := out.Send(outgoing(body[:min(n, 4)], body[min(n, 4):])); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.out.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, n := range sizes {
		want = append(want, frameOf(pattern(n))...)
	}
	if !bytes.Equal(wire.out.Bytes(), want) {
		t.Fatal("not the bytes of SP on the wire")
	}
	in, _ := memPipe(&wire.out, limit)
	for _, n := range sizes {
		m, err := in.Recv()
		if err != nil || !bytes.Equal(m.Body, pattern(n)) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		m.Free()
	}
	if _, err := in.Recv(); !errors.Is(err, errHungUp) {
		t.Errorf("at the end: %v", err)
	}
}

func TestPipeRefusesLengths(t *testing.T) {
	for _, size := range []uint64{101, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		p, _ := memPipe(bytes.NewReader(binary.BigEndian.AppendUint64(nil, size)), 100)
		_, err := p.Recv()
		want := fmt.Sprintf("%d bytes, the limit is 100 bytes", size)
		if !errors.Is(err, errOversized) || !strings.Contains(err.Error(), want) || errors.Is(err, ErrTooLarge) || p.set.stats.tooLarge.Load() != 1 {
			t.Errorf("%d: %v, %d counted", size, err, p.set.stats.tooLarge.Load())
		}
	}
}

func TestPipeCutInMessage(t *testing.T) {
	whole := frameOf(pattern(300))
	for n := 1; n < len(whole); n++ {
		p, _ := memPipe(bytes.NewReader(whole[:n]), 1000)
		if _, err := p.Recv(); !errors.Is(err, errCut) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// A length is only a claim: nothing near it is allocated before its bytes are here.
func TestPipeClaimAllocatesLittle(t *testing.T) {
	const limit, claims = 16 << 20, 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range claims {
		p, _ := memPipe(bytes.NewReader(binary.BigEndian.AppendUint64(nil, limit)), limit)
		if _, err := p.Recv(); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / claims; got > 192<<10 {
		t.Errorf("a claim of %d bytes allocated %d", limit, got)
	}
}

// A stranger that reads a reply as slowly as each step allows does not keep us for
// as long as all the steps together would; one that we dialed may.
func TestPipeWholeWriteIsBounded(t *testing.T) {
	for _, dialed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			set := &settings{queueBytes: 64 << 20, stallTimeout: 10 * time.Second, stats: &counters{}, log: newLogger(slog.New(slog.DiscardHandler))}
			gone := func() {}
			if dialed {
				gone = nil
			}
			p := newPipe(here, peerInfo{}, set, gone)
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					time.Sleep(3 * time.Second)
					if _, err := io.CopyN(io.Discard, there, stallStep/2); err != nil {
						return
					}
				}
			})
			began := time.Now()
			err := p.Send(outgoing(nil, make([]byte, wholeStep)))
			if err == nil {
				err = p.out.drain(t.Context())
			}
			if err != nil {
				err = p.endedBy()
			}
			switch took := time.Since(began); {
			case dialed && err != nil:
				t.Errorf("dialed: %v", err)
			case !dialed && (!errors.Is(err, errStalled) || took != 30*time.Second):
				t.Errorf("after %v: %v", took, err)
			}
			_ = p.Close()
			_ = there.Close()
			wg.Wait()
		})
	}
}

func FuzzPipe(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x03abc"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01x"))
	f.Add([]byte("\xff\x00\x00\x00\x00\x00\x00\x03abc"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x01\x00\x00abc"))
	f.Add([]byte(strings.Repeat("\x00\x00\x00\x00\x00\x00\x00\x02hi", 1000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 16
		p, _ := memPipe(bytes.NewReader(b), limit)
		var again []byte
		for {
			m, err := p.Recv()
			if err != nil {
				break
			}
			if len(m.Body) > limit {
				t.Fatalf("%d bytes", len(m.Body))
			}
			again = append(again, frameOf(m.Body)...)
			m.Free()
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatal("bytes that were not on the wire")
		}
	})
}

func FuzzSplitRequest(f *testing.F) {
	f.Add([]byte("\x80\x00\x00\x01body"))
	f.Add([]byte("\x00\x00\x00\x07\x80\x00\x00\x01body"))
	f.Add([]byte(strings.Repeat("\x00\x00\x00\x01", 9)))
	f.Fuzz(func(t *testing.T, b []byte) {
		header, body, err := splitRequest(b)
		if err != nil || header == nil {
			return
		}
		if !bytes.Equal(append(bytes.Clone(header), body...), b) || len(header)%4 != 0 || len(header) > maxHops*4 || header[len(header)-4] < 0x80 {
			t.Fatalf("% x: % x and % x", b, header, body)
		}
	})
}

func TestSplitRequestHops(t *testing.T) {
	for words := 1; words <= maxHops+1; words++ {
		b := []byte(strings.Repeat("\x00\x00\x00\x01", words-1) + "\x80\x00\x00\x02body")
		header, body, err := splitRequest(b)
		if err != nil {
			t.Fatal(err)
		}
		if ok := len(header) == 4*words && string(body) == "body"; ok != (words <= maxHops) {
			t.Errorf("%d words: % x, %q", words, header, body)
		}
	}
	for _, short := range []string{"", "\x80\x00\x00", "\x00\x00\x00\x01", "\x00\x00\x00\x01\x80"} {
		if _, _, err := splitRequest([]byte(short)); !errors.Is(err, ErrMalformed) {
			t.Errorf("% x: %v", short, err)
		}
	}
}
