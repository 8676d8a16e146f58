package unicast_test

import (
	"testing"

	"github.com/parley-mesh/parley/unicast"
)

func BenchmarkRequest(b *testing.B) {
	for name, node := range map[string]string{"network": "node2", "self": "node1"} {
		b.Run(name, func(b *testing.B) {
			w := newWorld()
			w.listen(b, "node2", echo, unicast.Config{})
			m := w.listen(b, "node1", echo, unicast.Config{})
			ctx, body := b.Context(), make([]byte, 64)
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := m.Request(ctx, node, "bench", body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkPush(b *testing.B) {
	w := newWorld()
	there := w.listen(b, "node2", echo, unicast.Config{})
	m := w.listen(b, "node1", nil, unicast.Config{})
	ctx, body := b.Context(), make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Push(ctx, "node2", "bench", body); err != nil {
			b.Fatal(err)
		}
	}
	if err := m.Shutdown(ctx); err != nil {
		b.Fatal(err)
	}
	eventually(b, "all arrive", func() bool { return there.Stats().Push.Handled >= uint64(b.N) })
}
