package attack

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// Protocol numbers as they are on the wire.
const (
	protoReq  = 0x30
	protoPush = 0x50
)

// address is the attacker's nth address, of which the loopback network has many.
func address(n int) string { return fmt.Sprintf("127.0.0.%d", 1+n) }

// needAddresses skips the test where the loopback network has one address only.
func needAddresses(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", address(1)+":0")
	if err != nil {
		t.Skipf("only one loopback address here: %v", err)
	}
	_ = ln.Close()
}

// dial connects from one of the attacker's addresses.
func dial(to *target, from string) (net.Conn, error) {
	d := net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.Dial("tcp", hostport(to.url()))
}

// connect is dial for one connection, which ends with the test at last.
func connect(t testing.TB, to *target, from string) *stranger {
	t.Helper()
	c, err := dial(to, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &stranger{c, c.(*net.TCPConn), t}
}

// enter connects and shakes hands, as a peer that the target wants.
func enter(t testing.TB, to *target, from string) *stranger {
	t.Helper()
	c := connect(t, to, from)
	if err := c.startTLS(to); err != nil {
		t.Fatalf("not let in: %v", err)
	}
	if err := greet(c, to); err != nil {
		t.Fatalf("not let in: %v", err)
	}
	return c
}

// startTLS shakes hands as TLS clients do, if the target wants that.
func (c *stranger) startTLS(to *target) error {
	if to.hello.Cert == nil {
		return nil
	}
	cfg, err := clientTLS(to.hello.Cert)
	if err != nil {
		return err
	}
	cfg.ServerName = "127.0.0.1"
	over := tls.Client(c.tcp, cfg)
	c.Conn = over
	_ = c.SetDeadline(time.Now().Add(soon))
	defer c.SetDeadline(time.Time{})
	return over.Handshake()
}

// greet exchanges SP's greetings. The target may still close the connection then, for
// want of a place.
func greet(c net.Conn, to *target) error {
	proto := uint16(protoReq)
	if to.puller {
		proto = protoPush
	}
	if _, err := c.Write(greeting(proto)); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(soon))
	defer c.SetReadDeadline(time.Time{})
	_, err := io.ReadFull(c, make([]byte, 8))
	return err
}

func greeting(proto uint16) []byte {
	return []byte{0, 'S', 'P', 0, byte(proto >> 8), byte(proto), 0, 0}
}

func length(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func frame(body []byte) []byte { return append(length(uint64(len(body))), body...) }

func request(id uint32, body []byte) []byte {
	return frame(append(binary.BigEndian.AppendUint32(nil, id|1<<31), body...))
}

// stranger is one connection of the attacker.
type stranger struct {
	net.Conn
	tcp *net.TCPConn // the same, or what is under its TLS
	t   testing.TB
}

func (c *stranger) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Error(err)
	}
}

// disconnected waits until the target has ended the connection, and returns how
// long that took.
func (c *stranger) disconnected() time.Duration {
	c.t.Helper()
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(soon))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("not disconnected within %v", soon)
	}
	return time.Since(began)
}

// trickle sends the bytes one by one until the target ends the connection, which it
// should do before there are no more.
func (c *stranger) trickle(b []byte, pause time.Duration) {
	c.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	defer func() {
		_ = c.Close()
		<-ended
	}()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
	c.t.Errorf("all %d bytes were let in", len(b))
}

// reset closes the connection the hard way.
func (c *stranger) reset() {
	_ = c.tcp.SetLinger(0)
	_ = c.tcp.Close()
}

// ready waits for the target's greeting, ours being sent, and reports whether it
// came.
func (c *stranger) ready() bool {
	_ = c.SetReadDeadline(time.Now().Add(soon))
	_, err := io.ReadFull(c, make([]byte, 8))
	return err == nil
}
