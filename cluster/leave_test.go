package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestEndings calls Close and Leave in any order and all at once.
func TestEndings(t *testing.T) {
	t.Parallel()
	leave := func(n *Node) error { return n.Leave(testContext(t)) }
	closing := (*Node).Close
	for name, ends := range map[string][]func(*Node) error{
		"close twice":       {closing, closing},
		"leave twice":       {leave, leave},
		"leave, then close": {leave, closing},
		"close, then leave": {closing, leave},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := startCluster(t, "node1", "node2")
			for _, end := range ends {
				if err := end(nodes[0]); err != nil {
					t.Error(err)
				}
				select {
				case <-nodes[0].Done():
				default:
					t.Error("Done is open")
				}
			}
			if err := nodes[0].Err(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		t.Parallel()
		nodes := startCluster(t, "node1", "node2")
		var wg sync.WaitGroup
		for range 4 {
			for _, end := range []func(*Node) error{leave, closing} {
				wg.Go(func() {
					if err := end(nodes[0]); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
	})
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		n := start(t, "node1", func(c *Config) { c.Profile = WAN })
		began := time.Now()
		if err := n.Leave(testContext(t)); err != nil {
			t.Error(err)
		}
		if took, wait := time.Since(began), 5*n.config.GossipInterval; took >= wait {
			t.Errorf("Leave took %v with nobody to tell", took)
		}
	})
}

func TestLeaveCutShort(t *testing.T) {
	t.Parallel()
	slow := func(c *Config) { c.Profile = WAN } // its goodbye takes 2.5 s
	cause := errors.New("enough")
	for name, cut := range map[string]func(*Node, context.CancelCauseFunc){
		"context": func(_ *Node, cancel context.CancelCauseFunc) { cancel(cause) },
		"close":   func(n *Node, _ context.CancelCauseFunc) { _ = n.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, "node1", slow), start(t, "node2", slow)
			join(t, b, a)
			converge(t, a, b)
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			left := make(chan error, 1)
			go func() { left <- b.Leave(ctx) }()
			waitStatus(t, a, "node2", Left) // the packet is there
			if b.Stats().Left != 1 {
				t.Error("it does not see itself leaving")
			}
			cut(b, cancel)
			err := <-left
			if name == "context" && !errors.Is(err, cause) || name == "close" && err != nil {
				t.Errorf("Leave says %v", err)
			}
			<-b.Done()
		})
	}
}

// TestCloseUnblocks: whatever waits on a node ends with it.
func TestCloseUnblocks(t *testing.T) {
	t.Parallel()
	n := start(t, "node1")
	mute := muteListener(t)
	var wg sync.WaitGroup
	ctx := context.Background()
	for _, wait := range []func(){
		func() { _, _ = n.Join(ctx, mute) },
		func() { _ = n.WaitForNode(ctx, "node2") },
		func() {
			for range n.Events(ctx) {
			}
		},
		func() {
			for range n.Providers(ctx, "mail") {
			}
		},
		func() { <-n.Done() },
	} {
		wg.Go(wait)
	}
	time.Sleep(20 * time.Millisecond) // so that they do wait
	_ = n.Close()
	wg.Wait()
}

// TestLeaveWithoutTime: a goodbye for which there is no time is said all the same.
func TestLeaveWithoutTime(t *testing.T) {
	t.Parallel()
	ns := startCluster(t, "a", "b", "c")
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := ns[2].Leave(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Leave: %v", err)
	}
	for _, n := range ns[:2] {
		eventually(t, "c is known to have left", func() bool { return status(n, "c") == Left })
	}
}
