package sp_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// dials are the two ways to dial, which must not differ.
var dials = map[string]func(context.Context, string, sp.Config) error{
	"requester": func(ctx context.Context, url string, cfg sp.Config) error {
		r, err := sp.DialRequester(ctx, url, quiet(cfg))
		if err == nil {
			_ = r.Close()
		}
		return err
	},
	"pusher": func(ctx context.Context, url string, cfg sp.Config) error {
		p, err := sp.DialPusher(ctx, url, quiet(cfg))
		if err == nil {
			_ = p.Close()
		}
		return err
	},
}

func TestDialErrors(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "tcp://" + free.Addr().String()
	_ = free.Close()
	pull := newPuller(t, func(context.Context, sp.Inbound) {}, sp.Config{})
	rep := newReplier(t, echo, sp.Config{})
	wrong := map[string]string{"requester": pull.URL(), "pusher": rep.URL()}

	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			err := dial(within(t, soon), nobody, sp.Config{})
			if !errors.Is(err, syscall.ECONNREFUSED) || strings.Count(err.Error(), free.Addr().String()) != 1 {
				t.Errorf("nobody there: %v", err)
			}
			if r, ok := err.(interface{ Reason() string }); !ok || r.Reason() != "connect: connection refused" {
				t.Errorf("the reason alone: %v", err)
			}
			err = dial(within(t, soon), "quic://127.0.0.1:1", sp.Config{})
			if _, ok := errors.AsType[*sp.URLError](err); !ok {
				t.Errorf("bad scheme: %v", err)
			}
			err = dial(within(t, soon), wrong[name], sp.Config{})
			if !errors.Is(err, sp.ErrHandshake) {
				t.Errorf("another protocol: %v", err)
			}
			err = dial(within(t, soon), "tcp://name.invalid:1", sp.Config{})
			if _, ok := errors.AsType[*net.DNSError](err); !ok {
				t.Errorf("no such host: %v", err)
			}
			cancelled, cancel := context.WithCancel(context.Background())
			cancel()
			err = dial(cancelled, rep.URL(), sp.Config{})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled before: %v", err)
			}
		})
	}
	eventually(t, "both repliers counted the strangers", func() bool {
		return pull.Stats().HandshakeFailed == 1 && rep.Stats().HandshakeFailed == 1
	})
}

// A peer that accepts and says nothing, as a stopped process does.
func TestDialMutePeer(t *testing.T) {
	mute := listenRaw(t)
	for name, dial := range dials {
		t.Run(name+"/deadline", func(t *testing.T) {
			ctx := within(t, 50*time.Millisecond)
			err := dial(ctx, mute.url(), sp.Config{HandshakeTimeout: time.Hour})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
		t.Run(name+"/cancelled", func(t *testing.T) {
			why := errors.New("node2 left")
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
			if err := dial(ctx, mute.url(), sp.Config{HandshakeTimeout: time.Hour}); !errors.Is(err, why) {
				t.Errorf("%v", err)
			}
		})
		t.Run(name+"/timeout", func(t *testing.T) {
			err := dial(context.Background(), mute.url(), sp.Config{HandshakeTimeout: 50 * time.Millisecond})
			if !errors.Is(err, sp.ErrHandshake) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	}
}

// An address from which nothing comes back at all.
func TestDialBlackHole(t *testing.T) {
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 100*time.Millisecond)
			began := time.Now()
			err := dial(ctx, "tcp://192.0.2.1:7950", sp.Config{}) // TEST-NET-1
			if err == nil {
				t.Error("connected to TEST-NET-1")
			}
			if ctx.Err() != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("returned after %v", d)
			}
		})
	}
}

func TestDialHostNameAndIPv6(t *testing.T) {
	for _, c := range []struct{ listen, host string }{
		{"tcp://127.0.0.1:0", "localhost"},
		{"tcp://[::1]:0", "[::1]"},
		{"tcp://*:0", "127.0.0.1"},
	} {
		r, err := sp.ListenReplier(c.listen, echo, quiet(sp.Config{}))
		if err != nil {
			if strings.Contains(c.listen, "::1") {
				t.Logf("no IPv6 here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		url := r.URL()
		if !strings.HasPrefix(url, "tcp://") || strings.HasSuffix(url, ":0") {
			t.Errorf("%s: URL is %s", c.listen, url)
		}
		q := newRequester(t, "tcp://"+c.host+url[strings.LastIndex(url, ":"):], sp.Config{})
		if reply, err := q.Request(within(t, soon), []byte("hi")); string(reply) != "hi" || err != nil {
			t.Errorf("%s: %q, %v", c.host, reply, err)
		}
		_ = q.Close()
		_ = r.Close()
	}
}

func TestListenErrors(t *testing.T) {
	r := newReplier(t, echo, sp.Config{})
	_, err := sp.ListenPuller(r.URL(), func(context.Context, sp.Inbound) {}, quiet(sp.Config{}))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), r.URL()) {
		t.Errorf("port in use: %v", err)
	}
	_, err = sp.ListenReplier("tcp://192.0.2.1:0", echo, quiet(sp.Config{}))
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("not our address: %v", err)
	}
	_, err = sp.ListenReplier("tcp://127.0.0.1", echo, quiet(sp.Config{}))
	if _, ok := errors.AsType[*sp.URLError](err); !ok {
		t.Errorf("no port: %v", err)
	}
}
