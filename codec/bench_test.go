package codec

import (
	"fmt"
	"testing"
	"time"
)

func benchEnvelope(size int) Envelope {
	return Envelope{Kind: KindRequest, ID: NewID(1, 2), ToInstance: 3, Timeout: time.Second,
		From: "node1", To: "node2", Topic: "invoice.create", Body: make([]byte, size)}
}

func BenchmarkEnvelopeAppend(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			e := benchEnvelope(size)
			buf := make([]byte, 0, e.Size())
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				buf, _ = e.Append(buf[:0])
			}
		})
	}
}

func BenchmarkEnvelopeAppendHead(b *testing.B) {
	e := benchEnvelope(64)
	buf := make([]byte, 0, e.Size())
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = e.AppendHead(buf[:0])
	}
}

func BenchmarkParser(b *testing.B) {
	e := benchEnvelope(64)
	buf, err := e.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	p := NewParser()
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Envelope(&e, buf, MaxBody); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEnvelope(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			e := benchEnvelope(size)
			buf, err := e.Append(nil)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseEnvelope(buf, MaxBody); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReply(b *testing.B) {
	r := Reply{ID: NewID(1, 2), Body: make([]byte, 64)}
	buf := make([]byte, 0, r.Size())
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = r.Append(buf[:0])
		if _, err := ParseReply(buf, MaxBody); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMetadataAppend(b *testing.B) {
	m := goldenMetadata["metadata-node1"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Append(nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseMetadata(b *testing.B) {
	m := goldenMetadata["metadata-node1"]
	buf, err := m.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseMetadata(buf); err != nil {
			b.Fatal(err)
		}
	}
}
