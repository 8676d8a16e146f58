package sp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-mesh/parley/sp"
)

func TestMain(m *testing.M) {
	if os.Getenv("SP_TEST_PANIC") != "" {
		panicInHandler()
		return
	}
	goleak.VerifyTestMain(m)
}

// Protocol numbers as they are on the wire.
const (
	protoReq  = 0x30
	protoRep  = 0x31
	protoPush = 0x50
	protoPull = 0x51
)

const anyPort = "tcp://127.0.0.1:0"

// soon bounds what should take milliseconds, on a machine that is busy.
const soon = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", soon, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func wait(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(soon):
		t.Fatalf("not within %v: %s", soon, what)
	}
}

// quiet is cfg with a logger that says nothing.
func quiet(cfg sp.Config) sp.Config {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// logged is a logger and what it has written.
func logged() (*slog.Logger, func() string) {
	b := &syncBuffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b.String
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func echo(_ context.Context, in sp.Inbound) []byte { return in.Body }

func newReplier(t testing.TB, handle func(context.Context, sp.Inbound) []byte, cfg sp.Config) *sp.Replier {
	t.Helper()
	r, err := sp.ListenReplier(anyPort, handle, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func newPuller(t testing.TB, handle func(context.Context, sp.Inbound), cfg sp.Config) *sp.Puller {
	t.Helper()
	p, err := sp.ListenPuller(anyPort, handle, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func newRequester(t testing.TB, url string, cfg sp.Config) *sp.Requester {
	t.Helper()
	r, err := sp.DialRequester(within(t, soon), url, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func newPusher(t testing.TB, url string, cfg sp.Config) *sp.Pusher {
	t.Helper()
	p, err := sp.DialPusher(within(t, soon), url, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// rawListener is a peer written by hand: its tests decide what it says.
type rawListener struct {
	net.Listener
	t *testing.T
}

func listenRaw(t *testing.T) *rawListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return &rawListener{ln, t}
}

func (l *rawListener) url() string { return "tcp://" + l.Addr().String() }

// accept takes one connection and greets it as proto.
func (l *rawListener) accept(proto uint16) *rawConn {
	l.t.Helper()
	c, err := l.Listener.Accept()
	if err != nil {
		l.t.Error(err)
		return nil
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return greetRaw(l.t, c, proto)
}

type rawConn struct {
	net.Conn
	t *testing.T
}

func dialTCP(t *testing.T, url string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func dialRaw(t *testing.T, url string, proto uint16) *rawConn {
	t.Helper()
	return greetRaw(t, dialTCP(t, url), proto)
}

func greeting(proto uint16) []byte {
	return []byte{0, 'S', 'P', 0, byte(proto >> 8), byte(proto), 0, 0}
}

func greetRaw(t *testing.T, c net.Conn, proto uint16) *rawConn {
	t.Helper()
	if _, err := c.Write(greeting(proto)); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
		t.Error(err)
	}
	return &rawConn{c, t}
}

func frame(parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(body))), body...)
}

func request(id uint32, body string) []byte {
	return frame(binary.BigEndian.AppendUint32(nil, id|1<<31), []byte(body))
}

func (c *rawConn) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Error(err)
	}
}

func (c *rawConn) recv() ([]byte, error) {
	var n [8]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint64(n[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

// ended reports how the other side ended the connection: nil is an orderly end.
func (c *rawConn) ended() error {
	_ = c.SetReadDeadline(time.Now().Add(soon))
	_, err := io.Copy(io.Discard, c)
	return err
}

func openFiles(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("open files are counted in /proc")
	}
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
