//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSendAndRequest(t *testing.T) {
	h := newHost(t)
	_, two := h.pair()
	h.must("send", "--agent", "node1", "node2", "hello", "--topic", "greeting")
	two.prints(`send node1 greeting 5B "hello"` + "\n")
	// Nothing that came from elsewhere moves a cursor.
	h.must("send", "--agent", "node1", "node2", "\x1b[2J\nnode9: hi")
	two.prints(`"\x1b[2J\nnode9: hi"` + "\n")
	h.must("send", "--agent", "node1", "node2", strings.Repeat("long ", 100))
	two.prints(`B more`)
	// To oneself, too.
	h.must("send", "--agent", "node2", "node2", "note to self")
	two.prints("note to self")

	h.fails(7, []string{"request to node2", "NOT DELIVERED", "no listener"}, "request", "--agent", "node1", "node2", "hi")
	l := h.listen("node2", "--exec", "tr a-z A-Z")
	if got := h.must("request", "--agent", "node1", "node2", "hello"); got != "HELLO" {
		t.Errorf("the reply is %q", got)
	}
	l.prints(`request node1 default 5B "hello"`)
	l.signal(syscall.SIGINT)
	if code := l.wait(); code != 0 {
		t.Errorf("an interrupted listen ends with %d", code)
	}
	eventually(t, "the listener is detached", func() bool {
		return h.do("request", "--agent", "node1", "node2", "hi").code == 7
	})

	if r := h.do("send", "--agent", "node1", "--json", "node2", "hello"); !strings.Contains(r.out, `"outcome":"handled"`) || r.err != "" {
		t.Errorf("send --json: %+v", r)
	}
	if strings.Contains(two.out.String(), "level=") || strings.Contains(two.errOut.String(), "hello") {
		t.Error("messages and log are mixed")
	}
}

func TestErrors(t *testing.T) {
	h := newHost(t)
	h.fails(2, []string{"no agent runs here", "parley agent"}, "members")
	h.fails(2, []string{"no agent called \"x\""}, "members", "--agent", "x")
	h.fails(2, []string{"NOT DELIVERED", "nowhere.sock"}, "send", "--socket", "nowhere.sock", "node2", "x")
	h.fails(1, []string{"did you mean send?"}, "sned", "node2", "x")
	h.fails(1, []string{"did you mean --timeout?"}, "send", "node2", "x", "--timeot", "1s")
	h.fails(1, []string{"NODE"}, "send")
	h.fails(1, []string{"quotes"}, "send", "node2", "two", "words")
	h.fails(1, []string{`"soon"`, "--timeout"}, "send", "node2", "x", "--timeout", "soon")

	one, two := h.pair()
	h.fails(2, []string{"node1, node2", "--agent"}, "send", "node2", "x")
	start := time.Now()
	h.fails(3, []string{"send to noed2", "NOT DELIVERED", "did you mean node2"}, "send", "--agent", "node1", "noed2", "x", "--timeout", "50s")
	if took := time.Since(start); took > 40*time.Second {
		t.Errorf("an unknown name took %v, so something waited for it", took)
	}
	h.fails(5, []string{"NOT DELIVERED", "was not there within"}, "send", "--agent", "node1", "node3", "x", "--wait", "--timeout", "100ms")
	h.fails(3, []string{"did you mean node"}, "addr", "--agent", "node1", "node")
	h.fails(1, []string{`"no/name"`, "a-z"}, "send", "--agent", "node1", "no/name", "x")
	h.fails(1, []string{"--topic", "255"}, "send", "--agent", "node1", "node2", "x", "--topic", strings.Repeat("x", 256))
	h.fails(1, []string{"--topic", "orders.*"}, "listen", "--agent", "node1", "--topic", "orders*")
	h.fails(1, []string{"reserved"}, "send", "--agent", "node1", "node2", "x", "--topic", "$broadcast")
	h.fails(1, []string{"itself"}, "join", "--agent", "node1", one.addr)
	h.fails(5, []string{"join via 127.0.0.1:" + freePortOnce(t), "refused", "--retry-join"}, "join", "--agent", "node1", "127.0.0.1:"+freePortOnce(t))

	two.kill()
	h.becomes("node1", "node2", "failed")
	h.fails(4, []string{"send to node2", "NOT DELIVERED", "failed"}, "send", "--agent", "node1", "node2", "x")
	h.fails(4, []string{"failed"}, "addr", "node2")
}

// freePortOnce is a port below those that the kernel gives away, where nobody listens.
func freePortOnce(*testing.T) string { return "9" }

func TestPushAndBroadcast(t *testing.T) {
	h := newHost(t)
	_, two := h.pair()
	three := h.agent("node3", "--join", two.addr)
	h.becomes("node1", "node3", "alive")
	h.must("push", "--agent", "node1", "node2", "one", "two", "three")
	two.prints(`"three"`)
	if out := two.out.String(); strings.Index(out, `"one"`) > strings.Index(out, `"two"`) || strings.Index(out, `"two"`) > strings.Index(out, `"three"`) {
		t.Errorf("out of order:\n%s", out)
	}

	h.must("broadcast", "--agent", "node1", "psst")
	two.prints(`broadcast node1 default 4B "psst"`)
	three.prints(`broadcast node1 default 4B "psst"`)
	if got := h.must("broadcast", "--agent", "node1", "--reliable", "tea"); got != "node2  handled\nnode3  handled\n" {
		t.Errorf("the receipt is %q", got)
	}
	two.prints(`"tea"`)
	three.prints(`"tea"`)
	big := strings.Repeat("x", 1025)
	h.check(h.feed(big, "broadcast", "--agent", "node1"), 9, []string{"NOT DELIVERED", "1025", "1024", "--reliable"}, "broadcast 1025 bytes")
	if r := h.feed(strings.Repeat("x", 1<<20), "broadcast", "--agent", "node1", "--reliable", "--json"); r.code != 0 || strings.Count(r.out, `"outcome":"handled"`) != 2 {
		t.Errorf("a reliable broadcast of full size: %+v", r)
	}

	h.listen("node3", "--topic", "odd", "--exec", "echo not today >&2; false")
	r := h.do("broadcast", "--agent", "node1", "--reliable", "--topic", "odd", "x")
	if r.code != 6 || !strings.Contains(r.out, "node2  handled\n") || !strings.Contains(r.out, "node3  HANDLER FAILED") || !strings.Contains(r.out, "not today") {
		t.Errorf("a broadcast that fails at one node: %+v", r)
	}
}

func TestWithoutAnAgent(t *testing.T) {
	h := newHost(t)
	one, two := h.pair()
	events := h.start("", "events", "--agent", "node1", "--json")
	events.says("watching")
	// Somewhere else.
	e := newHostBeside(t, h)
	e.must("send", "--join", one.addr, "node2", "by send")
	two.prints(`"by send"`)
	e.must("push", "--join", one.addr, "node2", "by push")
	two.prints(`"by push"`)
	e.must("broadcast", "--join", one.addr, "by gossip")
	one.prints(`"by gossip"`)
	two.prints(`"by gossip"`)
	if got := e.must("broadcast", "--join", one.addr, "--reliable", "by links"); got != "node1  handled\nnode2  handled\n" {
		t.Errorf("the receipt is %q", got)
	}
	h.listen("node2", "--exec", "tr a-z A-Z")
	if got := e.must("request", "--join", one.addr, "node2", "hello"); got != "HELLO" {
		t.Errorf("the reply is %q", got)
	}
	if got := e.must("ping", "--join", one.addr, "node2", "-c", "2", "-i", "10ms"); strings.Count(got, "reply from node2") != 2 {
		t.Errorf("ping printed %q", got)
	}
	if got := e.must("addr", "--join", one.addr, "node2", "--service", "unicast-rep"); !strings.HasPrefix(got, "tcp://127.0.0.1:") {
		t.Errorf("addr printed %q", got)
	}
	var names []string
	for line := range strings.Lines(e.must("members", "--join", one.addr)) {
		names = append(names, strings.Fields(line)[0])
	}
	if !slices.Equal(names, []string{"NAME", "node1", "node2"}) {
		t.Errorf("members lists %q", names)
	}
	e.fails(3, []string{"NOT DELIVERED", "did you mean node2"}, "send", "--join", one.addr, "noed2", "x")
	e.fails(5, []string{"join via 127.0.0.1:9", "refused"}, "send", "--join", "127.0.0.1:9", "node2", "x")
	// One that comes later.
	late := e.start("", "send", "--join", one.addr, "node3", "--wait", "--timeout", "50s", "welcome")
	three := h.agent("node3", "--join", one.addr)
	three.prints(`"welcome"`)
	if code := late.wait(); code != 0 {
		t.Errorf("send --wait: exit code %d", code)
	}

	// None of those clients was ever a member.
	events.prints("node3")
	for line := range strings.Lines(events.out.String()) {
		var ev struct {
			Type   string
			Time   time.Time
			Member struct{ Name string }
		}
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if !strings.HasPrefix(ev.Member.Name, "node") || ev.Time.IsZero() {
			t.Errorf("an event of a client: %s", line)
		}
	}
	if got := h.must("members", "--agent", "node1", "--json"); strings.Count(got, "\n") != 3 {
		t.Errorf("node1 lists\n%s", got)
	}
}

// newHostBeside is a place without agents, which belongs to the same test.
func newHostBeside(t *testing.T, h *host) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "pe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &host{t: t, dir: dir, env: append(slices.Clone(h.env), "XDG_RUNTIME_DIR="+dir)}
}

func TestMembersInfoTags(t *testing.T) {
	h := newHost(t)
	one := h.agent("node1", "--tag", "role=db", "--tag", "zone=a")
	two := h.agent("node2", "--tag", "role=web", "--join", one.addr)
	names := func(args ...string) string {
		var names []string
		for line := range strings.Lines(h.must(append([]string{"members", "--agent", "node1", "--json"}, args...)...)) {
			var m struct {
				Name, Addr, Status string
				Tags, Services     map[string]string
				Since              time.Time
			}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			if m.Addr == "" || m.Status != "alive" || m.Tags["role"] == "" || m.Since.IsZero() ||
				!strings.HasPrefix(m.Services["unicast-rep"], "tcp://127.0.0.1:") {
				t.Errorf("a line lacks something: %s", line)
			}
			names = append(names, m.Name)
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "node1 node2"}, {[]string{"--name", "*2"}, "node2"}, {[]string{"--name", "/1$/"}, "node1"},
		{[]string{"--tag", "role=web"}, "node2"}, {[]string{"--tag", "zone"}, "node1"}, {[]string{"--status", "failed"}, ""},
	} {
		if got := names(c.args...); got != c.want {
			t.Errorf("members %q lists %q, want %q", c.args, got, c.want)
		}
	}

	if got := h.must("tags", "--agent", "node1"); got != "role=db\nzone=a\n" {
		t.Errorf("tags prints %q", got)
	}
	h.must("tags", "set", "--agent", "node1", "zone=b", "tier=1")
	h.must("tags", "delete", "--agent", "node1", "role")
	if got := h.must("tags", "--agent", "node1", "--json"); got != `{"tier":"1","zone":"b"}`+"\n" {
		t.Errorf("tags --json prints %q", got)
	}
	eventually(t, "node2 sees the new tags", func() bool {
		return strings.Contains(h.must("members", "--agent", "node2", "--tag", "tier=1", "--tag", "zone=b"), "node1")
	})
	h.fails(1, []string{"no tag role"}, "tags", "delete", "--agent", "node1", "role")
	h.fails(1, []string{"KEY=VALUE"}, "tags", "set", "--agent", "node1", "oops")
	h.fails(9, []string{"512"}, "tags", "set", "--agent", "node1", "a="+strings.Repeat("x", 120), "b="+strings.Repeat("x", 120), "c="+strings.Repeat("x", 120), "d="+strings.Repeat("x", 120))

	var info struct {
		Name, Addr, Socket string
		Encrypted          bool
		PID                int
		Stats              map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(h.must("info", "--agent", "node2", "--json")), &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "node2" || info.Addr != two.addr || info.PID != two.cmd.Process.Pid || info.Encrypted || info.Stats["cluster"]["alive"] != 2.0 {
		t.Errorf("info is %+v", info)
	}
	if got := h.must("info", "--agent", "node2"); !strings.Contains(got, "2 alive, 0 left, 0 failed") {
		t.Errorf("info prints\n%s", got)
	}
	if got := h.must("addr", "--agent", "node1", "node2"); strings.Count(got, "tcp://127.0.0.1:") != 2 {
		t.Errorf("addr prints\n%s", got)
	}
}

func TestPing(t *testing.T) {
	h := newHost(t)
	h.pair()
	r := h.do("ping", "--agent", "node1", "node2", "-c", "3", "-i", "10ms")
	if r.code != 0 || strings.Count(r.out, "reply from node2: seq=") != 3 || !strings.Contains(r.err, "3 sent, 3 received, 0% lost, min/avg/max") {
		t.Errorf("ping: %+v", r)
	}
	p := h.start("", "ping", "--agent", "node1", "node2", "-i", "10ms")
	p.prints("seq=3 ")
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != 0 || !strings.Contains(p.errOut.String(), "ping statistics") {
		t.Errorf("an interrupted ping: exit code %d, %s", code, p.errOut.String())
	}
	if r := h.do("ping", "--agent", "node1", "nodeX"); r.code != 3 {
		t.Errorf("ping of nobody: %+v", r)
	}
}

func TestProgramVerbs(t *testing.T) {
	h := newHost(t)
	if got := h.must("keygen"); len(got) != 45 {
		t.Errorf("keygen prints %q", got)
	}
	file := filepath.Join(h.dir, "key")
	h.must("keygen", "--out", file)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 45 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	h.fails(1, []string{"already"}, "keygen", "--out", file)
	var v struct{ Version, Go string }
	if err := json.Unmarshal([]byte(h.must("version", "--json")), &v); err != nil || v.Version == "" || v.Go == "" {
		t.Errorf("version: %+v, %v", v, err)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := h.must("completion", shell); !strings.Contains(got, "parley") {
			t.Errorf("completion %s prints %q", shell, got)
		}
	}
	h.fails(1, []string{"fish"}, "completion", "tcsh")
	if got := h.must("help"); !strings.Contains(got, "EXIT CODES") || !strings.Contains(got, "broadcast") {
		t.Errorf("help prints\n%s", got)
	}
	if got := h.must("send", "node2", "--help"); !strings.Contains(got, "EXAMPLES") || !strings.Contains(got, "PARLEY_SEND_TOPIC") {
		t.Errorf("send --help prints\n%s", got)
	}
	if got := h.must("mem", "--generate-bash-completion"); got == "" {
		t.Error("nothing to complete a verb with")
	}
	h.agent("node7")
	if got := h.must("send", "--generate-bash-completion"); got != "node7\n" {
		t.Errorf("a node's name is completed with %q", got)
	}
}

func TestDemo(t *testing.T) {
	h := newHost(t)
	if out := h.must("demo"); !strings.Contains(out, "node3") || strings.Contains(out, "\x1b[") {
		t.Errorf("the demo prints\n%s", out)
	}
}
