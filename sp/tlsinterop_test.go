package sp_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-mesh/parley/sp"
)

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// NNG's tls+tcp, in both directions. Debian's speaks TLS 1.2 only, so that must be
// asked for.
func TestTLSWithNNG(t *testing.T) {
	c := cats[0]
	if _, err := exec.LookPath(c.name); err != nil {
		t.Skipf("%s is not installed (Debian: nng-utils)", c.name)
	}
	ca := newAuthority(t)
	cert := ca.issue("localhost")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	caFile := writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", ca.cert.Raw)
	certFile := writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", cert.Certificate[0])
	keyFile := writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", key)
	cfg := sp.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca.pool, MinVersion: tls.VersionTLS12}}

	rep := newTLSReplier(t, echo, cfg)
	out, exited := c.run(t, "--req", "--dial", "tls+tcp://localhost"+rep.URL()[strings.LastIndex(rep.URL(), ":"):],
		"--cacert", caFile, "--data", "hello from nng", "--ascii")
	wait(t, "nngcat ends", exited)
	if !strings.Contains(out(), "hello from nng") {
		if strings.Contains(out(), "Not supported") {
			t.Skip("this nngcat has no TLS")
		}
		t.Errorf("nngcat printed %q", out())
	}

	url := "tls+" + freeURL(t)
	c.run(t, "--rep", "--listen", url, "--cert", certFile, "--key", keyFile, "--data", "hello to nng")
	var req *sp.Requester
	eventually(t, "nngcat listens", func() bool {
		req, err = sp.DialRequester(within(t, soon), url, quiet(cfg))
		return err == nil
	})
	defer req.Close()
	if b, err := req.Request(within(t, soon), []byte("x")); err != nil || string(b) != "hello to nng" {
		t.Errorf("%q, %v", b, err)
	}
}
