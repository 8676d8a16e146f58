package sp_test

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// With no file descriptors left a listener waits, counts and says so, and goes on when
// there are some again.
func TestNoFileDescriptorsLeft(t *testing.T) {
	log, text := logged()
	rep := newReplier(t, echo, sp.Config{Logger: log})
	c := dialTCP(t, rep.URL()) // whatever the first one costs
	_ = c.Close()
	eventually(t, "it has gone", func() bool { st := rep.Stats(); return st.HandshakeFailed == 1 && st.Pending == 0 })

	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}
	defer restore()
	next, err := os.Open("/dev/null") // the lowest descriptor that is free
	if err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = uint64(next.Fd()) + 1
	_ = next.Close()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	c = dialTCP(t, rep.URL()) // takes the last one
	defer c.Close()
	eventually(t, "it fails", func() bool { return rep.Stats().AcceptErrors >= 2 })
	began, first := time.Now(), rep.Stats().AcceptErrors
	eventually(t, "it fails again", func() bool { return rep.Stats().AcceptErrors >= first+3 })
	if d := time.Since(began); d < 20*time.Millisecond {
		t.Errorf("three more attempts in %v", d)
	}
	restore()
	if _, err := c.Write(append(greeting(protoReq), request(1, "hello")...)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(soon))
	b := make([]byte, 8+8+4+5)
	if n, err := io.ReadFull(c, b); err != nil || !strings.HasSuffix(string(b), "hello") {
		t.Errorf("%q, %v", b[:n], err)
	}
	if s := text(); !strings.Contains(s, "too many open files") {
		t.Errorf("log: %s", s)
	}
}
