package sp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/xpull"
	"go.nanomsg.org/mangos/v3/protocol/xpush"
	_ "go.nanomsg.org/mangos/v3/transport/inproc"
	_ "go.nanomsg.org/mangos/v3/transport/ipc"
)

const patience = 20 * time.Second

func quietSettings() *settings {
	cfg, err := Config{Logger: slog.New(slog.DiscardHandler)}.normalized()
	if err != nil {
		panic(err)
	}
	return newSettings(cfg, cfg.MaxMessage, &counters{}, newLogger(cfg.Logger))
}

// foreignURL is a free address of each transport that mangos has beside tcp.
func foreignURL(t *testing.T, scheme string) string {
	switch scheme {
	case "inproc":
		return "inproc://" + t.Name()
	case "ipc":
		dir, err := os.MkdirTemp("", "sp") // a socket's path is short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return "ipc://" + filepath.Join(dir, "s")
	default:
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return "ws://" + ln.Addr().String() + "/sp"
	}
}

// foreignPair is a pipe of another transport with our adaptor at both ends.
func foreignPair(t *testing.T, url string) (here, there *foreignStream) {
	t.Helper()
	a, err := parseURL(url, true, nil)
	if err != nil || !a.foreign {
		t.Fatalf("%+v, %v", a, err)
	}
	set := quietSettings()
	accepted := make(chan *pipe, 1)
	var l *foreignListener
	server := newSocket(&socketProtocol{
		info: infoPull,
		attach: func(pp mangos.ProtocolPipe) error {
			p, err := l.adopt(pp)
			if err == nil {
				pp.SetPrivate(p)
				accepted <- p
			}
			return err
		},
		detach: func(pp mangos.ProtocolPipe) { _ = pp.GetPrivate().(*pipe).fail(io.EOF) },
	})
	if l, err = listenForeign(server, a, set); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	var dialed *pipe
	client := newSocket(&socketProtocol{
		info: infoPush,
		attach: func(pp mangos.ProtocolPipe) (err error) {
			dialed, err = foreignPipe(context.Background(), pp, set)
			pp.SetPrivate(dialed)
			return err
		},
		detach: func(pp mangos.ProtocolPipe) { _ = pp.GetPrivate().(*pipe).fail(io.EOF) },
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := dialForeign(ctx, client, a, set); err != nil {
		t.Fatal(err)
	}
	p := <-accepted
	t.Cleanup(func() {
		_ = dialed.Close()
		_ = p.Close()
		l.stop()
		if pipes, _ := l.counts(); pipes != 0 {
			t.Errorf("%d places are taken at the end", pipes)
		}
	})
	return dialed.conn.(*foreignStream), p.conn.(*foreignStream)
}

// A stream of frames, cut anywhere by the writer and the reader, comes out as it went
// in.
func TestForeignStream(t *testing.T) {
	for _, scheme := range []string{"inproc", "ipc"} {
		t.Run(scheme, func(t *testing.T) {
			here, there := foreignPair(t, foreignURL(t, scheme))
			var stream []byte
			for i := range 200 {
				n := []int{0, 1, 7, 8, 63, 64, 1000, 65536, 70000}[i%9]
				stream = append(stream, length(n)...)
				stream = append(stream, bytes.Repeat([]byte{byte(i)}, n)...)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, 2))
				for rest := stream; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(1<<r.IntN(18)))
					if k, err := here.Write(rest[:n]); k != n || err != nil {
						t.Errorf("wrote %d of %d, %v", k, n, err)
						return
					}
					rest = rest[n:]
				}
			})
			got := make([]byte, 0, len(stream))
			r := rand.New(rand.NewPCG(3, 4))
			_ = there.SetReadDeadline(time.Now().Add(patience))
			for len(got) < len(stream) {
				b := make([]byte, 1+r.IntN(1<<r.IntN(18)))
				n, err := there.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b[:n]...)
			}
			wg.Wait()
			if !bytes.Equal(got, stream) {
				t.Error("another stream came out")
			}
			if here.RemoteAddr() == nil || there.RemoteAddr().String() == "" {
				t.Errorf("addresses %v, %v", here.RemoteAddr(), there.RemoteAddr())
			}
		})
	}
}

func length(n int) []byte {
	b := make([]byte, lengthSize)
	for i := range 8 {
		b[7-i] = byte(n >> (8 * i))
	}
	return b
}

// Part of a message is never handed on.
func TestForeignPartOfAMessage(t *testing.T) {
	here, there := foreignPair(t, "inproc://"+t.Name())
	if n, err := here.Write(append(length(100), make([]byte, 99)...)); n != 107 || err != nil {
		t.Fatal(n, err)
	}
	_ = here.Close()
	_ = there.SetReadDeadline(time.Now().Add(patience))
	if n, err := there.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestForeignDeadlines(t *testing.T) {
	here, there := foreignPair(t, "inproc://"+t.Name())
	_ = there.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	for range 2 { // it stays
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
	// A deadline ends a wait that has begun.
	_ = there.SetReadDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
	time.AfterFunc(5*time.Millisecond, func() { _ = there.SetReadDeadline(time.Unix(1, 0)) })
	wg.Wait()
	// And can be taken back, with nothing lost.
	_ = there.SetReadDeadline(time.Time{})
	if _, err := here.Write(append(length(2), "hi"...)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(there, b); err != nil || string(b[8:]) != "hi" {
		t.Errorf("%q, %v", b, err)
	}

	// One message is taken ahead; who reads nothing stops the next ones.
	var err error
	written := 0
	for err == nil && written < 100 {
		_ = here.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n := 0
		if n, err = here.Write(length(0)); n == lengthSize {
			written++
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || written > 3 {
		t.Errorf("%d written, %v", written, err)
	}
	if _, err := here.Write(length(0)); err == nil {
		t.Error("it goes on after a message that was given up")
	}
}

// Closing ends whoever waits, from both sides and twice.
func TestForeignClose(t *testing.T) {
	for _, closeWrite := range []bool{false, true} {
		t.Run(fmt.Sprint(closeWrite), func(t *testing.T) {
			here, there := foreignPair(t, "inproc://"+t.Name())
			var wg sync.WaitGroup
			wg.Go(func() {
				want := net.ErrClosed
				if closeWrite {
					want = io.EOF
				}
				if _, err := here.Read(make([]byte, 1)); !errors.Is(err, want) {
					t.Errorf("here: %v", err)
				}
			})
			wg.Go(func() {
				if _, err := there.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("there: %v", err)
				}
			})
			if closeWrite {
				_ = here.CloseWrite()
			}
			_ = here.Close()
			wg.Wait()
			if _, err := here.Write(length(0)); err == nil {
				t.Error("written after the end")
			}
		})
	}
}

// Our pipe over the adaptor and stock mangos understand each other, and a message over
// the limit ends the connection, also where the transport has no limit.
func TestForeignAndStock(t *testing.T) {
	for _, scheme := range []string{"inproc", "ipc"} {
		t.Run(scheme, func(t *testing.T) {
			url := foreignURL(t, scheme)
			a, err := parseURL(url, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			stock, err := xpull.NewSocket()
			if err != nil {
				t.Fatal(err)
			}
			defer stock.Close()
			_ = stock.SetOption(mangos.OptionRecvDeadline, patience)
			if err := stock.Listen(url); err != nil {
				t.Fatal(err)
			}
			set := quietSettings()
			set.maxFrame = 1000
			var p *pipe
			sock := newSocket(&socketProtocol{
				info: infoPush,
				attach: func(pp mangos.ProtocolPipe) (err error) {
					p, err = foreignPipe(context.Background(), pp, set)
					pp.SetPrivate(p)
					return err
				},
				detach: func(pp mangos.ProtocolPipe) { _ = pp.GetPrivate().(*pipe).fail(io.EOF) },
			})
			if err := dialForeign(context.Background(), sock, a, set); err != nil {
				t.Fatal(err)
			}
			m := mangos.NewMessage(0)
			m.Body = append(m.Body, "hello"...)
			if err := p.Send(m); err != nil {
				t.Fatal(err)
			}
			if m, err := stock.RecvMsg(); err != nil || string(m.Body) != "hello" {
				t.Errorf("%v, %v", m, err)
			}
			_ = p.Close()

			// The other way.
			url = foreignURL(t, scheme) + "2"
			if a, err = parseURL(url, true, nil); err != nil {
				t.Fatal(err)
			}
			accepted := make(chan *pipe, 1)
			var l *foreignListener
			sock = newSocket(&socketProtocol{
				info: infoPull,
				attach: func(pp mangos.ProtocolPipe) error {
					p, err := l.adopt(pp)
					if err == nil {
						pp.SetPrivate(p)
						accepted <- p
					}
					return err
				},
				detach: func(pp mangos.ProtocolPipe) { _ = pp.GetPrivate().(*pipe).fail(io.EOF) },
			})
			if l, err = listenForeign(sock, a, set); err != nil {
				t.Fatal(err)
			}
			if err := l.Listen(); err != nil {
				t.Fatal(err)
			}
			push, err := xpush.NewSocket()
			if err != nil {
				t.Fatal(err)
			}
			defer push.Close()
			if err := push.Dial(l.Address()); err != nil {
				t.Fatal(err)
			}
			p = <-accepted
			if err := push.Send(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if b, _, err := p.in.next(); err != nil || len(b) != 1000 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if err := push.Send(make([]byte, 1001)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.in.next(); err == nil || scheme == "inproc" && !errors.Is(err, errOversized) {
				t.Errorf("over the limit: %v", err)
			}
			_ = p.Close()
			l.stop()
		})
	}
}

// A listener of another transport has the caps on connections, and asks who comes.
func TestForeignCaps(t *testing.T) {
	set := quietSettings()
	set.maxPipes, set.maxPerPeer = 100, 2
	name := "node2"
	set.identify = func(_ context.Context, c ConnInfo) (string, error) {
		if name == "" {
			return "", errors.New("nobody")
		}
		if c.Dialed || c.TLS != nil || c.Remote.Network() != "inproc" {
			t.Errorf("%+v", c)
		}
		return name, nil
	}
	a := address{scheme: "inproc", rest: t.Name(), foreign: true}
	var pipes []*pipe
	handled := make(chan struct{}, 10)
	var l *foreignListener
	sock := newSocket(&socketProtocol{
		info: infoPull,
		attach: func(pp mangos.ProtocolPipe) error {
			defer func() { handled <- struct{}{} }()
			p, err := l.adopt(pp)
			if err == nil {
				pp.SetPrivate(p)
				pipes = append(pipes, p)
			}
			return err
		},
		detach: func(pp mangos.ProtocolPipe) { _ = pp.GetPrivate().(*pipe).fail(io.EOF) },
	})
	l, err := listenForeign(sock, a, set)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	push, err := xpush.NewSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer push.Close()
	_ = push.SetOption(mangos.OptionReconnectTime, time.Hour)
	dial := func() {
		if err := push.Dial(a.inner()); err != nil {
			t.Fatal(err)
		}
		<-handled
	}
	for range 3 {
		dial()
	}
	name = ""
	dial()
	st := set.stats.snapshot()
	if n, _ := l.counts(); n != 2 || st.Accepted != 2 || st.Refused != 1 || st.OverPerPeer != 1 || st.Unidentified != 1 {
		t.Errorf("%d pipes, %+v", n, st)
	}
	if v, err := pipes[0].GetOption(OptionPeerName); v != "node2" || err != nil {
		t.Errorf("peer %v, %v", v, err)
	}
	for _, p := range pipes {
		_ = p.Close()
	}
	l.stop()
}

// A dial of another transport ends with its context, even when the transport does not
// come back.
func TestForeignDialEnds(t *testing.T) {
	set := quietSettings()
	sock := newSocket(&socketProtocol{info: infoPush,
		attach: func(mangos.ProtocolPipe) error { return ErrClosed }, detach: func(mangos.ProtocolPipe) {}})
	if err := dialForeign(context.Background(), sock, address{scheme: "inproc", rest: "nobody", foreign: true}, set); !errors.Is(err, mangos.ErrConnRefused) {
		t.Errorf("nobody there: %v", err)
	}
	mute, err := net.Listen("unix", strings.TrimPrefix(foreignURL(t, "ipc"), "ipc://"))
	if err != nil {
		t.Skip(err)
	}
	defer mute.Close()
	go func() {
		c, err := mute.Accept()
		if err == nil {
			time.Sleep(100 * time.Millisecond)
			_ = c.Close() // lets mangos go, which no context does
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = dialForeign(ctx, sock, address{scheme: "ipc", rest: mute.Addr().String(), foreign: true}, set)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > patience {
		t.Errorf("%v", err)
	}
}
