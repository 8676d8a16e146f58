package codec

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"unsafe"
)

// parse parses b over an Envelope that is not empty.
func parse(p *Parser, b []byte, maxBody int) (Envelope, error) {
	e := Envelope{Kind: 99, ID: NewID(9, 9), ToInstance: 9, Timeout: 9, From: "x", To: "x", Topic: "x", Body: []byte("x")}
	err := p.Envelope(&e, b, maxBody)
	return e, err
}

// TestParserRemembers: what it remembers is that of the same names and topics
// only, and costs nothing.
func TestParserRemembers(t *testing.T) {
	p := NewParser()
	envelope := func(kind Kind, from, to, topic string) ([]byte, Envelope) {
		e := Envelope{Kind: kind, ID: NewID(1, 2), From: from, To: to, Topic: topic, Body: []byte("b")}
		b, err := e.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b, e
	}
	// The same text with other bounds, and more texts than there are slots.
	rows := [][3]string{{"ab", "c", "d"}, {"a", "bc", "d"}, {"a", "b", "cd"}, {"abc", "d", ""}}
	for i := range 2 * len(p.slots) {
		rows = append(rows, [3]string{"node1", "node2", fmt.Sprint(i)})
	}
	for range 2 {
		for _, row := range rows {
			b, want := envelope(KindSend, row[0], row[1], row[2])
			for range 2 {
				got, err := parse(p, b, 1)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("parsed %+v, %v\n  want %+v", got, err, want)
				}
			}
		}
	}
	b, _ := envelope(KindSend, "node1", "node2", "news")
	first, _ := parse(p, b, 1)
	second, _ := parse(p, b, 1)
	if unsafe.StringData(first.Topic) != unsafe.StringData(second.Topic) {
		t.Error("a topic seen before was not remembered")
	}
	if n := testing.AllocsPerRun(100, func() { p.Envelope(new(Envelope), b, 1) }); n != 0 {
		t.Errorf("%v allocations for an envelope like the last", n)
	}
}

// TestParserChecksEveryKind: names that were good for one kind are not for all.
func TestParserChecksEveryKind(t *testing.T) {
	p := NewParser()
	gossip := Envelope{Kind: KindGossip, From: "node1", Topic: "x"}
	b, err := gossip.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []Kind{KindGossip, KindSend, KindGossip, KindBroadcast, 0, KindBroadcast + 1} {
		b[2] = byte(kind)
		want, wantErr := ParseEnvelope(b, 0)
		got, err := parse(p, b, 0)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Errorf("%v: %+v, %v; want %+v, %v", kind, got, err, want, wantErr)
		}
	}
}

func TestParserIsConcurrent(t *testing.T) {
	p := NewParser()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 4 * len(p.slots) {
				want := Envelope{Kind: KindPush, From: "node1", To: "node2", Topic: fmt.Sprint(i % (2 * len(p.slots)))}
				b, _ := want.Append(nil)
				if got, err := parse(p, b, 0); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("parsed %+v, %v\n  want %+v", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}
