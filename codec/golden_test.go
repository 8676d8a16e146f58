package codec

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// golden compares b with a file of hex lines and returns the file's bytes.
func golden(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *update {
		var text strings.Builder
		for len(b) > 0 {
			n := min(len(b), 32)
			text.WriteString(hex.EncodeToString(b[:n]) + "\n")
			b = b[n:]
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := readGolden(t, path)
	if !*update && !bytes.Equal(b, want) {
		t.Fatalf("%s: the format has changed\n got %x\nwant %x", path, b, want)
	}
	return want
}

func readGolden(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return b
}

// goldenFiles returns the bytes of all golden files whose name begins with prefix.
func goldenFiles(t testing.TB, prefix string) [][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", prefix+"*.hex"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files %s*: %v", prefix, err)
	}
	var all [][]byte
	for _, path := range paths {
		all = append(all, readGolden(t, path))
	}
	return all
}

var goldenEnvelopes = map[string]Envelope{
	"envelope-push":    {Kind: KindPush, ID: NewID(1, 2), From: "node1", To: "node2"},
	"envelope-send":    {Kind: KindSend, ID: NewID(0x0102030405060708, 9), ToInstance: 0xa0b0c0d0e0f01020, Timeout: 1500 * time.Millisecond, From: "node1", To: "node2", Topic: "orders", Body: []byte("hello")},
	"envelope-request": {Kind: KindRequest, ID: NewID(math.MaxUint64, math.MaxUint64), ToInstance: math.MaxUint64, Timeout: math.MaxUint32 * time.Millisecond, From: strings.Repeat("f", MaxName), To: strings.Repeat("t", MaxName), Topic: strings.Repeat("ü", MaxTopic/2) + "!", Body: []byte{0, 0xff}},
	"envelope-ping":    {Kind: KindPing, ID: NewID(7, 1), ToInstance: 3, Timeout: time.Millisecond, From: "A", To: "b"},
	"envelope-gossip":  {Kind: KindGossip, ID: NewID(7, 2), From: "node1", Topic: "$peers", Body: []byte("x")},
	"envelope-all":     {Kind: KindBroadcast, ID: NewID(7, 3), From: "node1", To: "node.2_a-b", Topic: "news", Body: []byte("to all")},
}

func TestGoldenEnvelopes(t *testing.T) {
	for name, e := range goldenEnvelopes {
		t.Run(name, func(t *testing.T) {
			b, err := e.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseEnvelope(golden(t, name, b), MaxBody)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, e) {
				t.Errorf("parsed %+v\n  want %+v", got, e)
			}
		})
	}
}

var goldenReplies = map[string]Reply{
	"reply-ok":    {ID: NewID(1, 2), Status: StatusOK, Body: []byte("pong")},
	"reply-empty": {ID: NewID(1, 3), Status: StatusOK},
	"reply-error": {ID: NewID(0x0102030405060708, 9), Status: StatusHandlerError, Text: "no such invoice:\n\t№ 7"},
	"reply-both":  {ID: NewID(1, 4), Status: StatusMalformed, Text: "t", Body: []byte{0, 0xff}},
}

func TestGoldenReplies(t *testing.T) {
	for name, r := range goldenReplies {
		t.Run(name, func(t *testing.T) {
			b, err := r.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseReply(golden(t, name, b), MaxBody)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, r) {
				t.Errorf("parsed %+v\n  want %+v", got, r)
			}
		})
	}
}

var goldenMetadata = map[string]Metadata{
	"metadata-small": {Name: "a", Instance: 1},
	"metadata-node1": {Name: "node1", Instance: 0xa0b0c0d0e0f01020, Epoch: 1_760_000_000_000_000_000,
		Services: map[string]string{"unicast-rep": ":41234", "unicast-pull": ":41235"}},
	"metadata-full": {Name: strings.Repeat("n", MaxName), Instance: math.MaxUint64, Epoch: math.MaxUint64, Leaving: true, Observer: true,
		Tags: map[string]string{"zone": "eu-1", "app/role": "billing über alles", "empty": ""},
		Services: map[string]string{"a": ":1", "b": ":127", "c": ":128", "d": ":255", "e": ":256", "f": ":65535",
			"tls": "tls+tcp://[2001:db8::1]:443", "tcp": "tcp://10.0.0.5:41234"}},
}

func TestGoldenMetadata(t *testing.T) {
	for name, m := range goldenMetadata {
		t.Run(name, func(t *testing.T) {
			b, err := m.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseMetadata(golden(t, name, b))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, m) {
				t.Errorf("parsed %+v\n  want %+v", got, m)
			}
		})
	}
}
