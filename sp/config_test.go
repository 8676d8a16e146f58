package sp

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConfigDefaultsAndChecks(t *testing.T) {
	cfg, err := Config{}.normalized()
	if err != nil || cfg.MaxMessage != 1<<20+4096 || cfg.QueueBytes != 8<<20 || cfg.InFlight != 256 || cfg.MaxPipes != 1024 ||
		cfg.MaxPending != 128 || cfg.MaxPerPeer != 8 || cfg.HandshakeTimeout != 5*time.Second || cfg.StallTimeout != 10*time.Second || cfg.Logger == nil {
		t.Errorf("zero value: %+v, %v", cfg, err)
	}
	if _, err := (Config{MaxMessage: HardMaxMessage}).normalized(); err != nil {
		t.Error(err)
	}
	for field, cfg := range map[string]Config{
		"MaxMessage":       {MaxMessage: HardMaxMessage + 1},
		"QueueBytes":       {QueueBytes: -1},
		"TotalBytes":       {TotalBytes: -1},
		"InFlight":         {InFlight: -1},
		"MaxPipes":         {MaxPipes: -1},
		"MaxPending":       {MaxPending: -1},
		"MaxPerPeer":       {MaxPerPeer: -1},
		"HandshakeTimeout": {HandshakeTimeout: -1},
		"StallTimeout":     {StallTimeout: -1},
	} {
		_, err1 := ListenPuller("tcp://127.0.0.1:0", nil, cfg)
		_, err2 := DialPusher(context.Background(), "tcp://127.0.0.1:1", cfg)
		for _, err := range []error{err1, err2} {
			if err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %v", field, err)
			}
		}
	}
}

func TestErrorsMatch(t *testing.T) {
	if !errors.Is(ErrClosed, net.ErrClosed) {
		t.Error("ErrClosed is not net.ErrClosed")
	}
	if !errors.Is(&LimitError{Size: 2, Limit: 1}, ErrTooLarge) {
		t.Error("LimitError is not ErrTooLarge")
	}
	why := errors.New("the operator changed her mind")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if err := contextError(ctx); !errors.Is(err, why) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	err := plain(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")})
	if err.Error() != "connection refused" {
		t.Errorf("%v", err)
	}
}

func TestLogIsLimitedPerKind(t *testing.T) {
	l := newLogger(nil)
	now := time.Now()
	pass := func(msg string, after time.Duration) int {
		n, ok := l.pass(msg, now.Add(after))
		if !ok {
			return -1
		}
		return n
	}
	if pass("a", 0) != 0 || pass("b", 0) != 0 {
		t.Error("the first of a kind must pass")
	}
	for range 7 {
		if pass("a", 999*time.Millisecond) != -1 {
			t.Error("a second one within a second")
		}
	}
	if n := pass("a", time.Second); n != 7 {
		t.Errorf("%d suppressed, want 7", n)
	}
	if n := pass("a", 2*time.Second); n != 0 {
		t.Errorf("%d suppressed, want 0", n)
	}
}
