package sp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// What was taken before Shutdown is answered, also to a client that goes on asking.
func TestReplierShutdownFlushes(t *testing.T) {
	const asked = 20
	release := make(chan struct{})
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		<-release
		return append(in.Body, make([]byte, 200<<10)...)
	}, sp.Config{})
	c := dialRaw(t, rep.URL(), protoReq)
	for i := range uint32(asked) {
		c.send(request(i, "x"))
	}
	eventually(t, "all are being handled", func() bool { return rep.Stats().Handling == asked })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := rep.Shutdown(within(t, soon)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "it accepts no more connections", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(rep.URL(), "tcp://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	stop := make(chan struct{})
	asking := make(chan struct{})
	tooLate := strings.Repeat("too late", 32<<10) // so that some of it is always on its way
	go func() {
		defer close(asking)
		for i := uint32(1000); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Write(request(i, tooLate)); err != nil {
				return
			}
		}
	}()
	eventually(t, "it takes no more requests", func() bool { return rep.Stats().Dropped > 0 })
	close(release)
	for i := range asked {
		if reply, err := c.recv(); err != nil || len(reply) != 4+1+200<<10 {
			t.Fatalf("reply %d: %d bytes, %v", i, len(reply), err)
		}
	}
	if _, err := c.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last reply: %v", err)
	}
	close(stop)
	<-asking
	_ = c.Close()
	wg.Wait()
	if st := rep.Stats(); st.Handling != 0 || st.Pipes != 0 || st.RepliesLost != 0 {
		t.Errorf("%+v", st)
	}
	if err := rep.Shutdown(within(t, soon)); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestReplierShutdownGivesUp(t *testing.T) {
	release := make(chan struct{})
	rep := newReplier(t, func(_ context.Context, in sp.Inbound) []byte {
		<-release // deaf to its context
		return in.Body
	}, sp.Config{})
	c := dialRaw(t, rep.URL(), protoReq)
	c.send(append(request(1, "x"), request(2, "x")...))
	eventually(t, "both are being handled", func() bool { return rep.Stats().Handling == 2 })
	err := rep.Shutdown(within(t, 30*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 messages") {
		t.Errorf("%v", err)
	}
	if _, err := c.recv(); err == nil {
		t.Error("the connection lives")
	}
	close(release)
	_ = rep.Close()
	if st := rep.Stats(); st.Handling != 0 || st.RepliesLost != 2 {
		t.Errorf("%+v", st)
	}
}

func TestReplierCloseTwiceAndAtOnce(t *testing.T) {
	rep := newReplier(t, func(ctx context.Context, in sp.Inbound) []byte {
		<-ctx.Done()
		return nil
	}, sp.Config{})
	reqs := make([]*sp.Requester, 5)
	var wg sync.WaitGroup
	for i := range reqs {
		reqs[i] = newRequester(t, rep.URL(), sp.Config{})
		wg.Go(func() {
			if _, err := reqs[i].Request(within(t, soon), nil); !errors.Is(err, sp.ErrConnectionLost) {
				t.Errorf("%v", err)
			}
		})
	}
	mute := dialTCP(t, rep.URL()) // in the handshake
	eventually(t, "all is under way", func() bool { st := rep.Stats(); return st.Handling == 5 && st.Pending == 1 })
	for range 4 {
		wg.Go(func() {
			if err := rep.Close(); err != nil {
				t.Error(err)
			}
			if st := rep.Stats(); st.Handling != 0 || st.Pipes != 0 || st.Pending != 0 {
				t.Errorf("after Close: %+v", st)
			}
		})
	}
	wg.Wait()
	if err := (&rawConn{mute, t}).ended(); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the pending handshake: %v", err)
	}
}
