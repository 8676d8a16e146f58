package sp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tlsPair is our side of a TLS connection that has shaken hands, and the other side
// with the connection under it. A write waits until it is read.
func tlsPair(t *testing.T) (ours *tlsConn, theirs *tls.Conn, under net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	theirs = tls.Client(there, &tls.Config{InsecureSkipVerify: true})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := theirs.Handshake(); err != nil {
			t.Error(err)
		}
	})
	// Without tickets, which the other side would have to read.
	ours, _, err = startTLS(here, &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	return ours, theirs, there
}

// A close waits for nobody: neither for a peer that does not read what it would say,
// nor for what is being written, nor for an end in good order that is under way.
func TestTLSConnCloseDoesNotWait(t *testing.T) {
	for name, c := range map[string]struct {
		before func(c *tlsConn, wg *sync.WaitGroup)
		atMost time.Duration
	}{
		"nothing under way": {func(*tlsConn, *sync.WaitGroup) {}, closeNotifyTime},
		"a write": {func(c *tlsConn, wg *sync.WaitGroup) {
			wg.Go(func() {
				if _, err := c.Write(make([]byte, 100000)); err == nil {
					t.Error("it was written")
				}
			})
		}, 0},
		"an end in good order": {func(c *tlsConn, wg *sync.WaitGroup) { _ = c.CloseWrite() }, 0},
		"a write that failed": {func(c *tlsConn, _ *sync.WaitGroup) {
			_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Write([]byte("x")); err == nil {
				t.Error("it was written")
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, _, under := tlsPair(t)
				var wg sync.WaitGroup
				c.before(ours, &wg)
				synctest.Wait()
				began := time.Now()
				_ = ours.Close()
				if d := time.Since(began); d > c.atMost {
					t.Errorf("it took %v", d)
				}
				if err := ours.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("the second close: %v", err)
				}
				if err := ours.CloseWrite(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("an end after the end: %v", err)
				}
				wg.Wait()
				_ = under.Close()
			})
		})
	}
}

// An end in good order waits for a slow peer for as long as it takes, and holds up
// nobody.
func TestTLSConnCloseWriteIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs, under := tlsPair(t)
		began := time.Now()
		if err := ours.CloseWrite(); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(time.Hour)
		if n, err := theirs.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the peer reads %d, %v", n, err)
		}
		go func() { _ = theirs.CloseWrite() }()
		if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer's end: %v", err)
		}
		_, _ = ours.Close(), under.Close()
	})
}

// The end of the connection under TLS is not the peer's word that this was all.
func TestTLSConnCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs, under := tlsPair(t)
		go func() {
			_, _ = theirs.Write([]byte("x"))
			_ = under.Close()
		}()
		b := make([]byte, 10)
		if n, err := ours.Read(b); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := ours.Read(b); !errors.Is(err, errTruncated) {
			t.Errorf("%v", err)
		}
		_ = ours.Close()
	})
}
