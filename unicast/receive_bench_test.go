package unicast

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// BenchmarkReceive is what a message costs from the connection to the handler and
// back, without the network.
func BenchmarkReceive(b *testing.B) {
	for _, kind := range []codec.Kind{codec.KindPush, codec.KindRequest} {
		for _, size := range []int{64, 1 << 10, 64 << 10} {
			b.Run(fmt.Sprint(kind, " ", size), func(b *testing.B) {
				m, err := Listen(nowhere{}, nil, Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				if err != nil {
					b.Fatal(err)
				}
				defer m.Close()
				handled := 0
				m.handler = HandlerFunc(func(_ context.Context, msg Message) ([]byte, error) {
					handled++
					return msg.Body, nil
				})
				env := codec.Envelope{Kind: kind, ID: codec.NewID(7, 1), ToInstance: 42, Timeout: time.Second,
					From: "node2", To: "node1", Topic: "invoice.create", Body: make([]byte, size)}
				frame, err := env.Append(nil)
				if err != nil {
					b.Fatal(err)
				}
				in := sp.Inbound{Remote: &net.TCPAddr{}, Scratch: make([]byte, 0, 64<<10)}
				b.ReportAllocs()
				for seq := uint64(1); b.Loop(); seq++ {
					binary.BigEndian.PutUint64(frame[12:], seq)
					in.Body = frame
					if kind == codec.KindPush {
						m.onPush(b.Context(), in)
					} else if m.onRequest(b.Context(), in) == nil {
						b.Fatal("no reply")
					}
				}
				if handled != b.N {
					b.Errorf("%d of %d were handled", handled, b.N)
				}
			})
		}
	}
}
