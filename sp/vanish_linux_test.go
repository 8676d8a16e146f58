//go:build linux && !386

package sp

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.nanomsg.org/mangos/v3"
)

// blackHole makes the system drop whatever arrives for conn from now on.
func blackHole(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	none := syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K} // of no bytes
	program := syscall.SockFprog{Len: 1, Filter: &none}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_ATTACH_FILTER,
			uintptr(unsafe.Pointer(&program)), unsafe.Sizeof(program), 0)
	})
	if err != nil || errno != 0 {
		t.Skip("no socket filters here:", err, errno)
	}
}

func socketOption(t *testing.T, conn net.Conn, option int) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	v := -1
	if err := raw.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option) }); err != nil {
		t.Fatal(err)
	}
	return v
}

// tcpPair is a connection as our dialers and listeners make them.
func tcpPair(t *testing.T, set *settings) (dialed, accepted net.Conn) {
	t.Helper()
	lc := net.ListenConfig{KeepAliveConfig: set.keepAlive, Control: socketOptions(set.userTimeout())}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{KeepAliveConfig: set.keepAlive, Control: socketOptions(0)}
	if dialed, err = d.Dial("tcp", ln.Addr().String()); err == nil {
		accepted, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return dialed, accepted
}

func TestSocketOptions(t *testing.T) {
	set := quietSettings()
	dialed, accepted := tcpPair(t, set)
	for _, c := range []struct {
		conn         net.Conn
		option, want int
	}{
		{dialed, tcpUserTimeout, 0}, {accepted, tcpUserTimeout, 30000},
		{dialed, tcpNotSentLowat, unsentLimit}, {accepted, tcpNotSentLowat, unsentLimit},
		{dialed, syscall.TCP_KEEPIDLE, 15}, {accepted, syscall.TCP_KEEPIDLE, 15},
		{dialed, syscall.TCP_KEEPINTVL, 5}, {accepted, syscall.TCP_KEEPCNT, 3},
	} {
		if v := socketOption(t, c.conn, c.option); v != c.want {
			t.Errorf("option %d is %d, want %d", c.option, v, c.want)
		}
	}
	set.stallTimeout = time.Minute
	if d := set.userTimeout(); d != 3*time.Minute {
		t.Errorf("with a long StallTimeout: %v", d)
	}
	if set.patient = true; set.userTimeout() != 0 {
		t.Error("where peers may press back for ever")
	}
}

// fill writes until the system takes no more.
func fill(t *testing.T, conn net.Conn) {
	t.Helper()
	b := make([]byte, 64<<10)
	for {
		_ = conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := conn.Write(b); err != nil {
			_ = conn.SetWriteDeadline(time.Time{})
			return
		}
	}
}

// A peer that does not read is there, and one that vanished is not.
func TestWatchTellsBackPressureFromBlackHole(t *testing.T) {
	const limit = time.Second
	set := quietSettings()
	for _, c := range []struct {
		name     string
		prepare  func(dialed, accepted net.Conn)
		vanished bool
	}{
		{"idle", func(_, _ net.Conn) {}, false},
		{"does not read", func(dialed, _ net.Conn) { fill(t, dialed) }, false},
		{"vanished with something on its way", func(dialed, accepted net.Conn) {
			blackHole(t, accepted)
			_, _ = dialed.Write([]byte("hello"))
		}, true},
		{"does not read, and vanished", func(dialed, accepted net.Conn) {
			fill(t, dialed)
			blackHole(t, accepted)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dialed, accepted := tcpPair(t, set)
			c.prepare(dialed, accepted)
			vanished := make(chan struct{})
			stop := watch(dialed, limit, func() { close(vanished) })
			defer stop()
			wait := 3 * limit
			if c.vanished {
				wait = patience
			}
			select {
			case <-vanished:
				if !c.vanished {
					t.Error("taken for vanished")
				}
			case <-time.After(wait):
				if c.vanished {
					t.Error("not noticed")
				}
			}
		})
	}
}

// A pipe that we dialed ends when its peer's host has vanished, and says so.
func TestPipeToVanishedHost(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_ = readGreeting(c, infoPull)
		_ = greet(c, infoPull)
		accepted <- c
	}()
	set := quietSettings()
	set.vanishTime = time.Second
	sock := newSocket(&socketProtocol{info: infoPush})
	d := &dialer{sock: sock, hostport: ln.Addr().String()}
	p, err := d.dial(context.Background(), set)
	if err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	defer c.Close()
	blackHole(t, c)
	m := mangos.NewMessage(5)
	m.Body = append(m.Body, "hello"...)
	if err := p.Send(m); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Recv(); !errors.Is(err, errVanished) {
		t.Errorf("%v", err)
	}
	_ = p.Close()
	if !strings.Contains(p.endedBy().Error(), "vanished") {
		t.Errorf("%v", p.endedBy())
	}
}
