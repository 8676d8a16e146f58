package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// scripted is an Agent that says what it is told to, and remembers what it was asked.
type scripted struct {
	err     error
	asked   string
	body    []byte
	time    time.Duration // that the call was given
	block   bool          // until the context ends
	events  []Event
	records []Record
}

func (s *scripted) note(ctx context.Context, format string, args ...any) error {
	s.asked = fmt.Sprintf(format, args...)
	if d, ok := ctx.Deadline(); ok {
		s.time = time.Until(d)
	}
	if s.block {
		<-ctx.Done()
		return NewFault(CodeTimeout, Unknown, "timed out at the agent", ctx.Err())
	}
	return s.err
}

func (s *scripted) Members(ctx context.Context) ([]Member, error) {
	return []Member{{Name: "n1", Tags: map[string]string{"k": "v"}}}, s.note(ctx, "members")
}
func (s *scripted) Info(ctx context.Context) (Info, error) {
	return Info{Name: "n1", PID: 7}, s.note(ctx, "info")
}
func (s *scripted) Send(ctx context.Context, to Target, body []byte) error {
	s.body = body
	return s.note(ctx, "send %+v", to)
}
func (s *scripted) Request(ctx context.Context, to Target, body []byte) ([]byte, error) {
	s.body = body
	return append([]byte("re:"), body...), s.note(ctx, "request %+v", to)
}
func (s *scripted) Push(ctx context.Context, to Target, body []byte) error {
	s.body = body
	return s.note(ctx, "push %+v", to)
}
func (s *scripted) Ping(ctx context.Context, to Target) (time.Duration, error) {
	return 123 * time.Microsecond, s.note(ctx, "ping %+v", to)
}
func (s *scripted) Broadcast(ctx context.Context, topic string, reliable bool, body []byte) (Receipt, error) {
	s.body = body
	return Receipt{Members: 2, Handled: []string{"a"}, Failed: map[string]Failure{"b": {"why", Unknown}}}, s.note(ctx, "broadcast %s %v", topic, reliable)
}
func (s *scripted) Join(ctx context.Context, seeds []string) (int, error) {
	return len(seeds), s.note(ctx, "join %q", seeds)
}
func (s *scripted) Leave(ctx context.Context) error { return s.note(ctx, "leave") }
func (s *scripted) Tags(ctx context.Context, c TagChange) (map[string]string, error) {
	return map[string]string{"a": "b"}, s.note(ctx, "tags %v %v", c.Set, c.Delete)
}
func (s *scripted) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for _, e := range s.events {
			if !yield(e, nil) {
				return
			}
		}
		if s.err != nil {
			yield(Event{}, s.err)
			return
		}
		<-ctx.Done()
	}
}
func (s *scripted) Listen(ctx context.Context, opts ListenOptions) iter.Seq2[Record, error] {
	s.asked = fmt.Sprintf("listen %+v", opts)
	return func(yield func(Record, error) bool) {
		for _, r := range s.records {
			if !yield(r, nil) {
				return
			}
		}
		if s.err != nil {
			yield(Record{}, s.err)
		}
	}
}
func (s *scripted) Answer(ctx context.Context, session string, seq uint64, a Answer) error {
	return s.note(ctx, "answer %s %d %q %q", session, seq, a.Reply, a.Err)
}

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "pc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func serve(t *testing.T, a Agent) *Client {
	s, err := Listen(filepath.Join(shortDir(t), "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := Serve(s, a, slog.New(slog.NewTextHandler(io.Discard, nil)))
	c := NewClient(s.Path)
	t.Cleanup(func() {
		c.Close()
		if err := srv.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func TestCallsCrossTheSocket(t *testing.T) {
	a := &scripted{}
	c := serve(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	to := Target{Node: "n 2&=?", Topic: "tö/pic", Wait: true}
	body := []byte{0, 1, 2, 255, '\n'}
	for _, test := range []struct {
		name  string
		call  func() (any, error)
		want  any
		asked string
		body  []byte
	}{
		{"send", func() (any, error) { return nil, c.Send(ctx, to, body) }, nil, fmt.Sprintf("send %+v", to), body},
		{"send nothing", func() (any, error) { return nil, c.Send(ctx, to, nil) }, nil, fmt.Sprintf("send %+v", to), []byte{}},
		{"request", func() (any, error) { return c.Request(ctx, to, body) }, append([]byte("re:"), body...), fmt.Sprintf("request %+v", to), body},
		{"push", func() (any, error) { return nil, c.Push(ctx, to, body) }, nil, fmt.Sprintf("push %+v", to), body},
		{"ping", func() (any, error) { return c.Ping(ctx, to) }, 123 * time.Microsecond, fmt.Sprintf("ping %+v", to), nil},
		{"broadcast", func() (any, error) { return c.Broadcast(ctx, "t", true, body) },
			Receipt{Members: 2, Handled: []string{"a"}, Failed: map[string]Failure{"b": {"why", Unknown}}}, "broadcast t true", body},
		{"members", func() (any, error) { return c.Members(ctx) }, []Member{{Name: "n1", Tags: map[string]string{"k": "v"}}}, "members", nil},
		{"info", func() (any, error) { return c.Info(ctx) }, Info{Name: "n1", PID: 7}, "info", nil},
		{"join", func() (any, error) { return c.Join(ctx, []string{"a:1", "b"}) }, 2, `join ["a:1" "b"]`, nil},
		{"leave", func() (any, error) { return nil, c.Leave(ctx) }, nil, "leave", nil},
		{"tags", func() (any, error) {
			return c.Tags(ctx, TagChange{Set: map[string]string{"x": "y"}, Delete: []string{"z"}})
		},
			map[string]string{"a": "b"}, "tags map[x:y] [z]", nil},
		{"answer", func() (any, error) { return nil, c.Answer(ctx, "s/1", 9, Answer{Reply: []byte("r")}) }, nil, `answer s/1 9 "r" ""`, nil},
		{"answer failed", func() (any, error) { return nil, c.Answer(ctx, "s1", 9, Answer{Err: "no"}) }, nil, `answer s1 9 "" "no"`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			a.asked, a.body, a.time = "", nil, 0
			got, err := test.call()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %#v, want %#v", got, test.want)
			}
			if a.asked != test.asked {
				t.Errorf("the agent was asked %s, want %s", a.asked, test.asked)
			}
			if test.body != nil && !bytes.Equal(a.body, test.body) {
				t.Errorf("the agent got %q, want %q", a.body, test.body)
			}
			if strings.HasPrefix(test.name, "send") && (a.time > time.Minute || a.time < 30*time.Second) {
				t.Errorf("the agent was given %v of a minute", a.time)
			}
		})
	}
}

// Every kind of fault means the same at both ends.
func TestFaultsCrossTheSocket(t *testing.T) {
	a := &scripted{}
	c := serve(t, a)
	for code := range table {
		want := NewFault(code, Unknown, "what, whom, and \"what next\"", errors.New("not for the wire"))
		a.err = fmt.Errorf("wrapped: %w", want)
		err := c.Send(t.Context(), Target{Node: "n"}, nil)
		var got *Fault
		if !errors.As(err, &got) {
			t.Fatalf("%s: got %T %v", code, err, err)
		}
		if got.Code != code || got.Exit != want.Exit || got.Message != want.Message || got.Outcome != Unknown {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	a.err = errors.New("no fault")
	err := c.Send(t.Context(), Target{Node: "n"}, nil)
	var got *Fault
	if !errors.As(err, &got) || got.Code != CodeInternal || got.Message != "no fault" {
		t.Errorf("an error that is no fault arrives as %v", err)
	}
}

func TestBodyOverTheLimit(t *testing.T) {
	a := &scripted{}
	c := serve(t, a)
	if err := c.Send(t.Context(), Target{Node: "n"}, make([]byte, MaxMessage)); err != nil || len(a.body) != MaxMessage {
		t.Fatalf("a body of exactly the limit: %v, %d bytes arrived", err, len(a.body))
	}
	a.asked = ""
	err := c.Send(t.Context(), Target{Node: "n"}, make([]byte, MaxMessage+1))
	var f *Fault
	if !errors.As(err, &f) || f.Code != CodeTooLarge || f.Outcome != NotDelivered || !strings.Contains(f.Message, "1048577 bytes") {
		t.Errorf("one byte more: %v", err)
	}
	if a.asked != "" {
		t.Error("the agent was asked all the same")
	}
}

// The agent knows best what became of a message, so the client waits for its word.
func TestTimeoutIsTheAgentsWord(t *testing.T) {
	c := serve(t, &scripted{block: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := c.Send(ctx, Target{Node: "n"}, nil)
	var f *Fault
	if !errors.As(err, &f) || f.Code != CodeTimeout || f.Message != "timed out at the agent" {
		t.Errorf("got %v", err)
	}
}

func TestCancelEndsACall(t *testing.T) {
	c := serve(t, &scripted{block: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	time.AfterFunc(20*time.Millisecond, cancel)
	err := c.Send(ctx, Target{Node: "n"}, nil)
	var f *Fault
	if !errors.As(err, &f) || f.Code != CodeCanceled || f.Outcome != Unknown {
		t.Errorf("got %v", err)
	}
}

// An agent that is stopped accepts (its kernel does) and says nothing.
func TestMuteAgent(t *testing.T) {
	path := filepath.Join(shortDir(t), "a.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(path)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err = c.Send(ctx, Target{Node: "n"}, nil)
	var f *Fault
	if !errors.As(err, &f) || f.Code != CodeUnreachable || f.Outcome != Unknown {
		t.Errorf("got %v", err)
	}
}

func TestNoAgent(t *testing.T) {
	c := NewClient(filepath.Join(shortDir(t), "a.sock"))
	err := c.Send(t.Context(), Target{Node: "n"}, nil)
	var f *Fault
	if !errors.As(err, &f) || f.Code != CodeUnreachable || f.Outcome != NotDelivered {
		t.Errorf("got %v", err)
	}
}

func TestStreams(t *testing.T) {
	stopping := NewFault(CodeUnreachable, "", "stopping", nil)

	t.Run("the reader ends it", func(t *testing.T) {
		events := []Event{{Type: "joined", Member: &Member{Name: "n1"}}, {Type: "lagged", Lost: 3}}
		c := serve(t, &scripted{events: events})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []Event
		for e, err := range c.Events(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, e); len(got) == 2 {
				cancel()
			}
		}
		if !reflect.DeepEqual(got, events) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("the agent ends it with a fault", func(t *testing.T) {
		records := []Record{
			{Type: RecordAttached, Session: "s"},
			{Type: RecordMessage, Seq: 1, Message: &Message{From: "n2", Body: bytes.Repeat([]byte{0xff}, 300_000)}},
		}
		a := &scripted{records: records, err: stopping}
		c := serve(t, a)
		var got []Record
		var last error
		for r, err := range c.Listen(t.Context(), ListenOptions{Topics: []string{"a", "b.*"}, Answer: true, Slots: 3, Limit: 5}) {
			if err != nil {
				last = err
				continue
			}
			got = append(got, r)
		}
		if !reflect.DeepEqual(got, records) {
			t.Errorf("got %d records", len(got))
		}
		if last == nil || last.Error() != "stopping" {
			t.Errorf("the last error is %v", last)
		}
		if want := "listen {Topics:[a b.*] Answer:true Slots:3 Limit:5}"; a.asked != want {
			t.Errorf("asked %s, want %s", a.asked, want)
		}
	})
	t.Run("the agent fails before the first line", func(t *testing.T) {
		c := serve(t, &scripted{err: stopping})
		n := 0
		for _, err := range c.Listen(t.Context(), ListenOptions{}) {
			n++
			var f *Fault
			if !errors.As(err, &f) || f.Message != "stopping" {
				t.Errorf("got %v", err)
			}
		}
		if n != 1 {
			t.Errorf("%d errors", n)
		}
	})
	t.Run("the agent just ends", func(t *testing.T) {
		c := serve(t, &scripted{})
		n := 0
		for _, err := range c.Listen(t.Context(), ListenOptions{}) {
			n++
			var f *Fault
			if !errors.As(err, &f) || f.Code != CodeUnreachable {
				t.Errorf("got %v", err)
			}
		}
		if n != 1 {
			t.Errorf("%d errors", n)
		}
	})
}

func TestBadCalls(t *testing.T) {
	c := serve(t, &scripted{})
	for _, path := range []string{"/v1/nothing", pathSend + "x", pathListen + "/s/notanumber"} {
		err := c.call(t.Context(), "", "POST", path, nil, nil, nil)
		var f *Fault
		if !errors.As(err, &f) || f.Code != CodeUsage {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, q := range []map[string][]string{{paramWait: {"maybe"}}, {paramTimeout: {"soon"}}, {paramReliable: {"2"}}} {
		err := c.call(t.Context(), "", "POST", pathBroadcast, q, nil, nil)
		var f *Fault
		if !errors.As(err, &f) || f.Code != CodeUsage {
			t.Errorf("%v: %v", q, err)
		}
	}
	if err := c.call(t.Context(), "", "POST", pathTags, nil, []byte(`{"sett":{}}`), nil); err == nil {
		t.Error("an unknown key in the JSON was taken")
	}
}
