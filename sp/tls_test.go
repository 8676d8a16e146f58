package sp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	_ "go.nanomsg.org/mangos/v3/transport/tlstcp"

	"github.com/parley-mesh/parley/sp"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a node on this host.
func (a *authority) issue(name string) tls.Certificate {
	key := a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// mutual is a configuration for both sides, each with a certificate.
func (a *authority) mutual(name string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.issue(name)}, RootCAs: a.pool,
		ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

const anyTLSPort = "tls+tcp://127.0.0.1:0"

func newTLSReplier(t *testing.T, handle func(context.Context, sp.Inbound) []byte, cfg sp.Config) *sp.Replier {
	t.Helper()
	r, err := sp.ListenReplier(anyTLSPort, handle, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func newTLSPuller(t *testing.T, handle func(context.Context, sp.Inbound), cfg sp.Config) *sp.Puller {
	t.Helper()
	p, err := sp.ListenPuller(anyTLSPort, handle, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func hostport(url string) string { return url[strings.Index(url, "://")+3:] }

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1")})
	if !strings.HasPrefix(rep.URL(), "tls+tcp://127.0.0.1:") {
		t.Errorf("URL is %s", rep.URL())
	}
	cfg := ca.mutual("node2")
	req := newRequester(t, rep.URL(), sp.Config{TLS: cfg})
	if cfg.ServerName != "" || cfg.MinVersion != 0 {
		t.Error("the caller's configuration was changed")
	}
	var wg sync.WaitGroup
	for _, n := range []int{0, 1, 1000, 16384, 70000, 1 << 20} {
		wg.Go(func() {
			if b, err := req.Request(within(t, soon), make([]byte, n)); err != nil || len(b) != n {
				t.Errorf("%d bytes: %d back, %v", n, len(b), err)
			}
		})
	}
	wg.Wait()

	var got []string
	pull := newTLSPuller(t, func(_ context.Context, in sp.Inbound) { got = append(got, string(in.Body)) }, sp.Config{TLS: ca.mutual("node1")})
	push := newPusher(t, pull.URL(), sp.Config{TLS: ca.mutual("node2")})
	for _, s := range []string{"a", "b", strings.Repeat("c", 100000)} {
		if err := push.Send(within(t, soon), []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := push.Shutdown(within(t, soon)); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if len(got) != 3 || got[0] != "a" || len(got[2]) != 100000 {
		t.Errorf("%d messages arrived", len(got))
	}
}

// An address and a configuration that do not go together are an error before anything
// is sent: no address leads to a plain connection where TLS was asked for.
func TestTLSConfigAndAddress(t *testing.T) {
	ca := newAuthority(t)
	for url, cfg := range map[string]*tls.Config{"tcp://127.0.0.1:1": ca.mutual("x"), "tls+tcp://127.0.0.1:1": nil} {
		for name, dial := range dials {
			if _, ok := errors.AsType[*sp.URLError](dial(within(t, soon), url, sp.Config{TLS: cfg})); !ok {
				t.Errorf("%s %s: no URLError", name, url)
			}
		}
		if _, err := sp.ListenReplier(url, echo, quiet(sp.Config{TLS: cfg})); err == nil {
			t.Errorf("listens on %s", url)
		}
	}
	if _, err := sp.ListenReplier(anyTLSPort, echo, quiet(sp.Config{TLS: &tls.Config{}})); err == nil {
		t.Error("listens without a certificate")
	}
}

// Whom TLS refuses hears it from the dial, also when it is the listener that refuses
// and TLS 1.3 was already content on the dialer's side.
func TestTLSRefuses(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1")})
	old := ca.mutual("node2")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	plain := newReplier(t, echo, sp.Config{})
	for name, c := range map[string]struct {
		url string
		cfg *tls.Config
	}{
		"no certificate":          {rep.URL(), &tls.Config{RootCAs: ca.pool}},
		"another authority's":     {rep.URL(), &tls.Config{RootCAs: ca.pool, Certificates: other.mutual("node2").Certificates}},
		"unknown listener":        {rep.URL(), other.mutual("node2")},
		"TLS 1.2":                 {rep.URL(), old},
		"another name":            {rep.URL(), &tls.Config{ServerName: "node7", RootCAs: ca.pool, Certificates: ca.mutual("node2").Certificates}},
		"a plain listener":        {"tls+" + plain.URL(), ca.mutual("node2")},
		"plain at a TLS listener": {strings.TrimPrefix(rep.URL(), "tls+"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := dials["requester"](within(t, soon), c.url, sp.Config{TLS: c.cfg})
			// A TLS listener hangs up on plain SP without a word.
			if err == nil || c.cfg != nil && !errors.Is(err, sp.ErrHandshake) {
				t.Errorf("%v", err)
			}
		})
	}
	eventually(t, "all are counted", func() bool {
		st := rep.Stats()
		return st.HandshakeFailed == 6 && st.Pending == 0 && st.Pipes == 0
	})
	if _, err := newRequester(t, rep.URL(), sp.Config{TLS: ca.mutual("node2")}).Request(within(t, soon), nil); err != nil {
		t.Error(err)
	}
}

// TLS 1.2 is there for whom asks for it.
func TestTLSMinVersion(t *testing.T) {
	ca := newAuthority(t)
	cfg := ca.mutual("node1")
	cfg.MinVersion = tls.VersionTLS12
	rep := newTLSReplier(t, echo, sp.Config{TLS: cfg})
	old := cfg.Clone()
	old.MaxVersion = tls.VersionTLS12
	if _, err := newRequester(t, rep.URL(), sp.Config{TLS: old}).Request(within(t, soon), nil); err != nil {
		t.Error(err)
	}
}

// mangos' own tls+tcp understands us and is understood.
func TestStockMangosTLS(t *testing.T) {
	ca := newAuthority(t)
	options := map[string]any{mangos.OptionTLSConfig: ca.mutual("stock")}
	rep1 := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1")})
	got := make(chan string, 1)
	pull1 := newTLSPuller(t, func(_ context.Context, in sp.Inbound) { got <- string(in.Body) }, sp.Config{TLS: ca.mutual("node1")})

	// mangos does not take the name to check from the address.
	dialing := ca.mutual("stock")
	dialing.ServerName = "127.0.0.1"
	q := stock(t, req.NewSocket)
	if err := q.DialOptions(rep1.URL(), map[string]any{mangos.OptionTLSConfig: dialing}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, 300000} {
		if err := q.Send(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if b, err := q.Recv(); err != nil || len(b) != n {
			t.Fatalf("stock REQ: %d bytes, %v", len(b), err)
		}
	}
	p := stock(t, push.NewSocket)
	if err := p.DialOptions(pull1.URL(), map[string]any{mangos.OptionTLSConfig: dialing}); err != nil {
		t.Fatal(err)
	}
	if err := p.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != "x" {
		t.Errorf("stock PUSH: %q", b)
	}

	theirs := stock(t, rep.NewSocket)
	l, err := theirs.NewListener(anyTLSPort, options)
	if err == nil {
		err = l.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if b, err := theirs.Recv(); err == nil {
			_ = theirs.Send(b)
		}
	}()
	ours := newRequester(t, l.Address(), sp.Config{TLS: ca.mutual("node1")})
	if b, err := ours.Request(within(t, soon), []byte("hi")); err != nil || string(b) != "hi" {
		t.Errorf("stock REP: %q, %v", b, err)
	}
	sink := stock(t, pull.NewSocket)
	l, err = sink.NewListener(anyTLSPort, options)
	if err == nil {
		err = l.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	pusher := newPusher(t, l.Address(), sp.Config{TLS: ca.mutual("node1")})
	if err := pusher.Send(within(t, soon), []byte("y")); err != nil {
		t.Fatal(err)
	}
	if b, err := sink.Recv(); err != nil || string(b) != "y" {
		t.Errorf("stock PULL: %q, %v", b, err)
	}
	if err := pusher.Shutdown(within(t, soon)); err != nil {
		t.Errorf("stock PULL at the end: %v", err)
	}
}

// Stock protocols over our TLS transport, with the certificates in sight.
func TestStockProtocolsOnOurTLS(t *testing.T) {
	ca := newAuthority(t)
	a, b := stock(t, pull.NewSocket), stock(t, push.NewSocket)
	l := listenOurs(t, a, sp.SchemeTLS, map[string]any{
		mangos.OptionTLSConfig: ca.mutual("node1"),
		sp.OptionConfig: quiet(sp.Config{Identify: func(_ context.Context, c sp.ConnInfo) (string, error) {
			return c.TLS.PeerCertificates[0].Subject.CommonName, nil
		}}),
	})
	if err := b.DialOptions(l.Address(), map[string]any{mangos.OptionTLSConfig: ca.mutual("node2"), sp.OptionConfig: quiet(sp.Config{})}); err != nil {
		t.Fatal(err)
	}
	if err := b.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	m, err := a.RecvMsg()
	if err != nil {
		t.Fatal(err)
	}
	if v, err := m.Pipe.GetOption(sp.OptionPeerName); err != nil || v != "node2" {
		t.Errorf("from %v, %v", v, err)
	}
	v, err := m.Pipe.GetOption(mangos.OptionTLSConnState)
	if state, ok := v.(tls.ConnectionState); !ok || len(state.PeerCertificates) != 1 {
		t.Errorf("TLS state %v, %v", v, err)
	}
}

// Strangers at a TLS listener: nobody holds a place for longer than the deadline,
// whatever he says or leaves unsaid.
func TestTLSHostileHandshakes(t *testing.T) {
	ca := newAuthority(t)
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1"), HandshakeTimeout: 500 * time.Millisecond, MaxPending: 32})
	honest := newRequester(t, rep.URL(), sp.Config{TLS: ca.mutual("node2")})
	hello := clientHello(t)

	record := func(kind byte, body []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{kind, 3, 1}, uint16(len(body))), body...)
	}
	// A message of 16 MB that never comes, in a handshake.
	endless := append(record(0x16, append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 16000)...)), record(0x16, make([]byte, 16000))...)
	for name, in := range map[string][]byte{
		"mute":                  nil,
		"half a hello":          hello[:len(hello)/2],
		"mute after hello":      hello,
		"hello twice":           append(hello[:len(hello):len(hello)], hello...),
		"garbage":               []byte(strings.Repeat("\xff", 5000)),
		"plain SP":              append(greeting(protoReq), request(1, "x")...),
		"an alert":              record(0x15, []byte{2, 40}),
		"an oversized record":   append([]byte{0x16, 3, 1, 0xff, 0xff}, make([]byte, 70000)...),
		"an oversized message":  endless,
		"application data":      record(0x17, make([]byte, 100)),
		"a thousand small ones": []byte(strings.Repeat("\x16\x03\x01\x00\x01\x01", 1000)),
	} {
		t.Run(name, func(t *testing.T) {
			before := rep.Stats()
			c := dialTCP(t, rep.URL()[len("tls+"):])
			_, _ = c.Write(in)
			_ = (&rawConn{c, t}).ended()
			eventually(t, "counted", func() bool {
				st := rep.Stats()
				return st.HandshakeFailed == before.HandshakeFailed+1 && st.Pending == 0 && st.Pipes == 1
			})
		})
	}
	t.Run("hello byte by byte", func(t *testing.T) {
		c := dialTCP(t, rep.URL()[len("tls+"):])
		began := time.Now()
		go func() {
			for i := range hello {
				if _, err := c.Write(hello[i : i+1]); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		_ = (&rawConn{c, t}).ended()
		if d := time.Since(began); d < 400*time.Millisecond || d > soon {
			t.Errorf("cut off after %v", d)
		}
	})
	if _, err := honest.Request(within(t, soon), nil); err != nil {
		t.Error(err)
	}
}

// A chain of certificates without end is not read to its end.
func TestTLSHugeChain(t *testing.T) {
	ca := newAuthority(t)
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1")})
	cfg := ca.mutual("node2")
	for range 2000 { // some 800 KB
		cfg.Certificates[0].Certificate = append(cfg.Certificates[0].Certificate, cfg.Certificates[0].Certificate[0])
	}
	base := heap()
	for range 10 {
		if err := dials["requester"](within(t, soon), rep.URL(), sp.Config{TLS: cfg}); err == nil {
			t.Fatal("let in")
		}
	}
	eventually(t, "all are counted", func() bool { st := rep.Stats(); return st.HandshakeFailed == 10 && st.Pending == 0 })
	if n := heap() - base; n > 4<<20 {
		t.Errorf("%d bytes are left of it", n)
	}
}

// A crowd that is mute after its hello has a bounded number of places, and its end
// waits for nobody.
func TestTLSCloseEndsHandshakes(t *testing.T) {
	ca := newAuthority(t)
	rep := newTLSReplier(t, echo, sp.Config{TLS: ca.mutual("node1"), HandshakeTimeout: time.Hour, MaxPending: 16})
	hello := clientHello(t)
	for range 50 {
		c := dialTCP(t, rep.URL()[len("tls+"):])
		_, _ = c.Write(hello)
	}
	eventually(t, "all have come", func() bool { st := rep.Stats(); return st.Pending == 8 && st.Refused == 42 && st.OverPending == 42 })
	closed := make(chan struct{})
	go func() { _ = rep.Close(); close(closed) }()
	wait(t, "closed", closed)
}

// clientHello is what a TLS client says first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer there.Close()
	go func() {
		_ = tls.Client(here, &tls.Config{InsecureSkipVerify: true}).Handshake()
		_ = here.Close()
	}()
	var head [5]byte
	if _, err := io.ReadFull(there, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(there, body); err != nil {
		t.Fatal(err)
	}
	return append(head[:], body...)
}

// A mute TLS listener: the dial ends with its context, and with HandshakeTimeout.
func TestTLSDialMutePeer(t *testing.T) {
	ca := newAuthority(t)
	mute := listenRaw(t)
	for name, dial := range dials {
		err := dial(within(t, 50*time.Millisecond), "tls+"+mute.url(), sp.Config{TLS: ca.mutual("node2"), HandshakeTimeout: time.Hour})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		err = dial(context.Background(), "tls+"+mute.url(), sp.Config{TLS: ca.mutual("node2"), HandshakeTimeout: 50 * time.Millisecond})
		if !errors.Is(err, sp.ErrHandshake) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Closing waits for no peer, not even to say goodbye to one that does not read.
func TestTLSCloseWithStalledPeer(t *testing.T) {
	ca := newAuthority(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", ca.mutual("node1"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() { // greets, and reads no more
				_, _ = c.Write(greeting(protoPull))
				_, _ = io.ReadFull(c, make([]byte, 8))
			}()
		}
	}()
	url := "tls+tcp://" + ln.Addr().String()
	push := newPusher(t, url, sp.Config{TLS: ca.mutual("node2"), QueueBytes: 32 << 20})
	body := make([]byte, 1<<20)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	for push.Send(ctx, body) == nil {
	}
	began := time.Now()
	_ = push.Close()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("closed after %v", d)
	}
	// The same with an end in good order, which the peer does not take note of.
	push = newPusher(t, url, sp.Config{TLS: ca.mutual("node2")})
	if err := push.Send(within(t, soon), []byte("x")); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := push.Shutdown(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("shut down after %v", d)
	}
}

// Somebody on the way who cuts a TLS connection between two messages does not pass
// for a peer who closes in good order.
func TestTLSTruncation(t *testing.T) {
	ca := newAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		c := tls.Server(raw, ca.mutual("node1"))
		_, _ = io.ReadFull(c, make([]byte, 8))
		_, _ = c.Write(greeting(protoPull))
		_, _ = io.Copy(io.Discard, c) // until Shutdown says that this was all
		_ = raw.Close()
	}()
	push := newPusher(t, "tls+tcp://"+ln.Addr().String(), sp.Config{TLS: ca.mutual("node2")})
	if err := push.Send(within(t, soon), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := push.Shutdown(within(t, soon)); err == nil || !strings.Contains(err.Error(), "close_notify") {
		t.Errorf("shutdown: %v", err)
	}
}
