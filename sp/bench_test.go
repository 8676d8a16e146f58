package sp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

var benchSizes = []int{64, 1 << 10, 64 << 10}

// One way, as fast as one sender can, until the last message is handled.
func BenchmarkPush(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var handled atomic.Int64
			all := make(chan struct{}, 1)
			want := int64(-1)
			pull := newPuller(b, func(context.Context, sp.Inbound) {
				if handled.Add(1) == atomic.LoadInt64(&want) {
					all <- struct{}{}
				}
			}, sp.Config{})
			push := newPusher(b, pull.URL(), sp.Config{})
			ctx, body := b.Context(), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			atomic.StoreInt64(&want, int64(b.N))
			b.ResetTimer()
			for range b.N {
				if err := push.Send(ctx, body); err != nil {
					b.Fatal(err)
				}
			}
			<-all
		})
	}
}

// Requests with so many outstanding.
func BenchmarkRequest(b *testing.B) {
	for _, outstanding := range []int{1, 64} {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%d/%d", outstanding, size), func(b *testing.B) {
				rep := newReplier(b, func(_ context.Context, in sp.Inbound) []byte { return in.Body }, sp.Config{})
				req := newRequester(b, rep.URL(), sp.Config{})
				ctx, body := b.Context(), make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var left atomic.Int64
				left.Store(int64(b.N))
				done := make(chan struct{})
				deadline := time.Now().Add(time.Hour)
				b.ResetTimer()
				for range outstanding {
					go func() {
						defer func() { done <- struct{}{} }()
						x := sp.Exchange{Body: body, Reply: make([]byte, 0, size), Deadline: deadline}
						for left.Add(-1) >= 0 {
							x.Reply = x.Reply[:0]
							if err := req.Do(ctx, &x); err != nil {
								b.Error(err)
								return
							}
						}
					}()
				}
				for range outstanding {
					<-done
				}
			})
		}
	}
}
