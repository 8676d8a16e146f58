package sp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// closeNotifyTime bounds what a close may spend on telling a TLS peer that this was
// all; what is in its way is a peer that does not read.
const closeNotifyTime = 100 * time.Millisecond

// errTruncated is the end of a TLS connection that the peer did not announce: whoever
// is on the way can end it so, and only the peer's own end is an orderly one.
var errTruncated = errors.New("connection cut: it ended without TLS' close_notify")

// hasCertificate reports whether a listener can shake hands with cfg at all.
func hasCertificate(cfg *tls.Config) bool {
	return len(cfg.Certificates) > 0 || cfg.GetCertificate != nil || cfg.GetConfigForClient != nil
}

// clientTLS is cfg for a dial to hostport.
func clientTLS(cfg *tls.Config, hostport string) *tls.Config {
	if cfg.ServerName != "" || cfg.InsecureSkipVerify {
		return cfg
	}
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return cfg // the handshake will say so
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	return cfg
}

// startTLS shakes hands over conn, whose deadline and end are the caller's matter.
func startTLS(conn net.Conn, cfg *tls.Config, dialed bool) (*tlsConn, *tls.ConnectionState, error) {
	under := &underTLS{Conn: conn}
	c := &tlsConn{under: under}
	if dialed {
		c.Conn = tls.Client(under, cfg)
	} else {
		c.Conn = tls.Server(under, cfg)
	}
	if err := c.Handshake(); err != nil {
		return nil, nil, tlsError(err)
	}
	state := c.ConnectionState()
	return c, &state, nil
}

// tlsError tells a peer that does not get on with us from one that is not there any
// more.
func tlsError(err error) error {
	_, network := errors.AsType[*net.OpError](err)
	if network || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return wireError(err)
	}
	return fmt.Errorf("%w: %w", ErrHandshake, err)
}

// wireError is plain, but for what a TLS peer says of us before it hangs up: package
// tls makes that look like an error of the network, and with TLS 1.3 it may come after
// our side of the handshake went well.
func wireError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return fmt.Errorf("%w: refused by the peer: %w", ErrHandshake, op.Err)
	}
	return plain(err)
}

// tlsConn is a TLS connection whose ends are quick and honest: closing never waits for
// a peer that does not read, and an end that the peer did not announce is an error.
type tlsConn struct {
	*tls.Conn
	under *underTLS

	mu        sync.Mutex
	closed    bool
	finishing sync.WaitGroup // CloseWrite
}

// Read reads. io.EOF means that the peer said that this was all.
func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == io.EOF && c.under.ended.Load() {
		err = errTruncated
	}
	return n, err
}

// CloseWrite tells the peer, after all that was written, that no more will come. It
// does not wait: a goroutine that ends with the connection does while the peer does
// not read.
func (c *tlsConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.under.patient.Store(true)
	c.finishing.Go(func() { _ = c.Conn.CloseWrite() })
	return nil
}

// Close ends the connection at once, and tells the peer so when it listens.
func (c *tlsConn) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		return net.ErrClosed
	}
	if c.under.writing.Load() > 0 || c.under.broken.Load() {
		// There is no room for another word, and package tls would wait for it.
		err := c.under.Conn.Close()
		c.finishing.Wait()
		return err
	}
	late := time.AfterFunc(closeNotifyTime, func() { _ = c.under.Conn.Close() })
	err := c.Conn.Close()
	late.Stop()
	_ = c.under.Conn.Close() // package tls does not when it was called by two at once
	c.finishing.Wait()
	return err
}

// underTLS is the connection under a TLS connection.
type underTLS struct {
	net.Conn
	ended   atomic.Bool  // the peer's end was read, be it announced or not
	broken  atomic.Bool  // a write failed
	writing atomic.Int32 // writes under way
	patient atomic.Bool  // CloseWrite has no deadline
}

func (u *underTLS) Read(b []byte) (int, error) {
	n, err := u.Conn.Read(b)
	if err == io.EOF {
		u.ended.Store(true)
	}
	return n, err
}

func (u *underTLS) Write(b []byte) (int, error) {
	u.writing.Add(1)
	defer u.writing.Add(-1)
	n, err := u.Conn.Write(b)
	if err != nil {
		u.broken.Store(true)
	}
	return n, err
}

// SetWriteDeadline keeps package tls from giving up a close_notify after 5 s.
func (u *underTLS) SetWriteDeadline(t time.Time) error {
	if u.patient.Load() {
		return nil
	}
	return u.Conn.SetWriteDeadline(t)
}
