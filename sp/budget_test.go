package sp

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestBudgetIsServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.acquire(8, nil, nil)
		var order []string
		var mu sync.Mutex
		claim := func(name string, n int) {
			go func() {
				b.acquire(n, nil, nil)
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		claim("large", 9)
		claim("small", 1) // would fit, and must not overtake
		if len(order) != 0 {
			t.Fatalf("granted %v", order)
		}
		b.release(8)
		synctest.Wait()
		if len(order) != 2 {
			t.Fatalf("granted %v", order)
		}
	})
}

func TestBudgetAdmitsOneOversized(t *testing.T) {
	b := newBudget(10)
	if !b.acquire(25, nil, nil) {
		t.Fatal("an empty budget admits anything")
	}
	stop := make(chan struct{})
	close(stop)
	if b.acquire(1, stop, nil) {
		t.Fatal("a full one nothing")
	}
	b.release(25)
	if !b.acquire(1, stop, nil) {
		t.Fatal("nor does it forget")
	}
}

func TestBudgetGivenUpMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.acquire(8, nil, nil)
		stop := make(chan struct{})
		var large, small atomic.Bool
		go func() { large.Store(b.acquire(9, nil, stop)) }()
		synctest.Wait()
		go func() { small.Store(b.acquire(2, nil, nil)) }()
		synctest.Wait()
		close(stop)
		synctest.Wait()
		if large.Load() || !small.Load() {
			t.Errorf("large %v, small %v", large.Load(), small.Load())
		}
	})
}

// Whatever is granted and given up at the same moment, nothing gets lost.
func TestBudgetAddsUp(t *testing.T) {
	b := newBudget(100)
	var inUse atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				n := 1 + (i*7+j)%60
				stop := make(chan struct{})
				if j%3 == 0 {
					go close(stop)
				}
				if !b.acquire(n, stop, nil) {
					continue
				}
				if v := inUse.Add(int64(n)); v > 100 {
					t.Errorf("%d in use of 100", v)
				}
				inUse.Add(-int64(n))
				b.release(n)
			}
		})
	}
	wg.Wait()
	if b.used != 0 || len(b.waiting) != 0 {
		t.Errorf("left over: %d, %d waiting", b.used, len(b.waiting))
	}
}
