package sp_test

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// cat is a foreign SP program: nngcat of NNG or nanocat of nanomsg.
type cat struct {
	name, dial, listen string
}

var cats = []cat{
	{name: "nngcat", dial: "--dial", listen: "--listen"},
	{name: "nanocat", dial: "--connect", listen: "--bind"},
}

func eachCat(t *testing.T, f func(*testing.T, cat)) {
	for _, c := range cats {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.name); err != nil {
				t.Skipf("%s is not installed (Debian: nng-utils, nanomsg-utils)", c.name)
			}
			f(t, c)
		})
	}
}

// run starts a cat and returns what it has printed so far.
func (c cat) run(t *testing.T, args ...string) (output func() string, exited <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, c.name, args...)
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			t.Logf("%s %s printed:\n%s", c.name, strings.Join(args, " "), out.String())
		}
	})
	return out.String, done
}

func freeURL(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return "tcp://" + ln.Addr().String()
}

func TestForeignReqToReplier(t *testing.T) {
	eachCat(t, func(t *testing.T, c cat) {
		rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte { return bytes.ToUpper(in.Body) }, sp.Config{})
		args := []string{"--req", c.dial, rep.URL(), "--data", "hello", "--ascii"}
		output, _ := c.run(t, args...)
		eventually(t, "it prints the reply", func() bool { return strings.Contains(output(), "HELLO") })
	})
}

func TestForeignPushToPuller(t *testing.T) {
	eachCat(t, func(t *testing.T, c cat) {
		got := make(chan string, 10)
		pull := newPuller(t, func(_ context.Context, in sp.Inbound) { got <- string(in.Body) }, sp.Config{})
		args := []string{"--push", c.dial, pull.URL(), "--data", "hello"}
		if c.name == "nanocat" {
			args = append(args, "--interval", "1") // else it leaves before the message does
		}
		c.run(t, args...)
		select {
		case b := <-got:
			if b != "hello" {
				t.Errorf("%q", b)
			}
		case <-time.After(soon):
			t.Error("nothing arrived")
		}
	})
}

func TestRequesterToForeignRep(t *testing.T) {
	eachCat(t, func(t *testing.T, c cat) {
		url := freeURL(t)
		output, _ := c.run(t, "--rep", c.listen, url, "--data", "world", "--ascii")
		var req *sp.Requester
		eventually(t, "it listens", func() (ok bool) {
			var err error
			req, err = sp.DialRequester(within(t, soon), url, quiet(sp.Config{}))
			return err == nil
		})
		defer req.Close()
		for range 3 {
			if b, err := req.Request(within(t, soon), []byte("hello")); err != nil || string(b) != "world" {
				t.Errorf("%q, %v", b, err)
			}
		}
		eventually(t, "it prints the requests", func() bool { return strings.Count(output(), "hello") == 3 })
	})
}

func TestPusherToForeignPull(t *testing.T) {
	eachCat(t, func(t *testing.T, c cat) {
		url := freeURL(t)
		output, _ := c.run(t, "--pull", c.listen, url, "--ascii")
		var push *sp.Pusher
		eventually(t, "it listens", func() (ok bool) {
			var err error
			push, err = sp.DialPusher(within(t, soon), url, quiet(sp.Config{}))
			return err == nil
		})
		for range 3 {
			if err := push.Send(within(t, soon), []byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
		if err := push.Shutdown(within(t, soon)); err != nil {
			t.Error(err)
		}
		eventually(t, "it prints the messages", func() bool { return strings.Count(output(), "hello") == 3 })
	})
}
