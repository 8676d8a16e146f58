package sp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestHandshakeBytes(t *testing.T) {
	var out bytes.Buffer
	in := bytes.NewReader([]byte("\x00SP\x00\x00\x31\x00\x00rest"))
	if err := errors.Join(greet(&out, infoReq), readGreeting(in, infoReq)); err != nil {
		t.Fatal(err)
	}
	if out.String() != "\x00SP\x00\x00\x30\x00\x00" {
		t.Errorf("sent % x", out.Bytes())
	}
	if rest, _ := io.ReadAll(in); string(rest) != "rest" {
		t.Errorf("read beyond the greeting, %q is left", rest)
	}
}

func TestHandshakeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"another protocol": {"\x00SP\x00\x00\x50\x00\x00", ErrHandshake},
		"itself":           {"\x00SP\x00\x00\x30\x00\x00", ErrHandshake},
		"another version":  {"\x00SP\x01\x00\x31\x00\x00", ErrHandshake},
		"reserved bytes":   {"\x00SP\x00\x00\x31\x00\x01", ErrHandshake},
		"first byte":       {"\x01SP\x00\x00\x31\x00\x00", ErrHandshake},
		"HTTP":             {"GET / HTTP/1.1\r\n", ErrHandshake},
		"TLS":              {"\x16\x03\x01\x02\x00\x01\x00\x01", errSpeaksTLS},
		"a TLS alert":      {"\x15\x03\x03\x00\x02\x02\x46", errSpeaksTLS},
		"hung up":          {"", errHungUp},
		"cut":              {"\x00SP\x00", errCut},
	} {
		if err := readGreeting(strings.NewReader(c.in), infoReq); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add([]byte("\x00SP\x00\x00\x31\x00\x00"))
	f.Add([]byte("\x00SP\x00\x00\x50\x00\x00"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		err := readGreeting(bytes.NewReader(b), infoReq)
		want := bytes.HasPrefix(b, []byte("\x00SP\x00\x00\x31\x00\x00"))
		if (err == nil) != want {
			t.Fatalf("% x: %v", b, err)
		}
	})
}
