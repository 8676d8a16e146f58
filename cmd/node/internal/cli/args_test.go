package cli

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func testProgram() *program {
	p := &program{Streams: Streams{Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}}
	p.env = func(string) (string, bool) { return "", false }
	p.app = p.build()
	return p
}

func TestArrange(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "help"},
		{"-h", "help"},
		{"--help", "help"},
		{"--version", "version"},
		{"-v", "version"},
		{"help send", "help -- send"},
		{"send -h", "help send"},
		{"send node2 x --help", "help send"},
		{"tags set --help", "help tags set"},

		{"members", "members --"},
		{"send node2 hello", "send -- node2 hello"},
		{"send node2 hello --timeout 3s", "send --timeout=3s -- node2 hello"},
		{"send --timeout 3s node2 hello", "send --timeout=3s -- node2 hello"},
		{"send node2 --timeout=3s hello -w", "send --timeout=3s --wait -- node2 hello"},
		{"send -T 3s node2 -t orders hello", "send --timeout=3s --topic=orders -- node2 hello"},
		{"send -timeout 3s node2 hello", "send --timeout=3s -- node2 hello"},
		{"--agent node1 send node2 hello", "send --agent=node1 -- node2 hello"},
		{"-a node1 members --json", "members --agent=node1 --json --"},
		{"--json members", "members --json --"},
		{"ping node2 -c3 -i0.2s", "ping --count=3 --interval=0.2s -- node2"},
		{"listen --topic a -t b --topic=c", "listen --topic=a --topic=b --topic=c --"},
		{"listen --exec tr", "listen --exec=tr --"},

		// What begins with "-" and is no flag.
		{"send node2 -- -x", "send -- node2 -x"},
		{"send node2 -- --timeout", "send -- node2 --timeout"},
		{"send --json node2 -- -- x", "send --json -- node2 -- x"},
		{"send node2 -", "send -- node2 -"},
		{"send node2 -5", "send -- node2 -5"},
		{"send node2 -0.5", "send -- node2 -0.5"},
		{"send node2 --topic -x hello", "send --topic=-x -- node2 hello"},

		{"tags set a=b --json c=d", "tags set --json -- a=b c=d"},
		{"tags --agent n1 delete a", "tags delete --agent=n1 -- a"},
		{"tags", "tags --"},
		{"h send", "help -- send"},
	} {
		args := append([]string{"parley"}, strings.Fields(c.in)...)
		got, err := arrange(testProgram().app, args)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if want := append([]string{"parley"}, strings.Fields(c.want)...); !slices.Equal(got, want) {
			t.Errorf("%q became %q, want %q", c.in, got[1:], want[1:])
		}
	}
}

// An empty argument is an argument.
func TestArrangeEmptyBody(t *testing.T) {
	got, err := arrange(testProgram().app, []string{"parley", "send", "node2", "", "--topic", ""})
	if want := []string{"parley", "send", "--topic=", "--", "node2", ""}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestArrangeComplains(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"sned node2 x", "did you mean send?"},
		{"xyzzy", `there is no verb "xyzzy"; "parley help" lists them`},
		{"send node2 x --timout 3s", `there is no flag "--timout"; did you mean --timeout?`},
		{"send node2 -x", `goes after "--"`},
		{"send node2 x --timeout", "the flag --timeout needs a value"},
		{"tags sett a=b", "did you mean set?"},
		{"--agent n1", "which verb?"},
		{"--nonsense send", `there is no flag "--nonsense"`},
		{"members --reliable", `there is no flag "--reliable"`},
	} {
		_, err := arrange(testProgram().app, append([]string{"parley"}, strings.Fields(c.in)...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.in, err, c.want)
		}
	}
}

// No two flags of a verb share a name, and each verb's help has examples.
func TestVerbs(t *testing.T) {
	for _, c := range testProgram().app.Commands {
		seen := map[string]bool{}
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				if seen[name] {
					t.Errorf("%s has two flags %s", c.Name, name)
				}
				seen[name] = true
			}
		}
		if !strings.Contains(c.CustomHelpTemplate, "EXAMPLES") || c.Usage == "" {
			t.Errorf("the help of %s lacks examples or a description", c.Name)
		}
	}
}

func TestCompletionIsLeftAlone(t *testing.T) {
	in := []string{"parley", "send", "--ti", completionFlag}
	if got, err := arrange(testProgram().app, in); err != nil || !slices.Equal(got, in) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestCompletionRunsNothing: a question of a completion script is never taken
// for an argument, wherever a "--" stands.
func TestCompletionRunsNothing(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // no agent here
	for _, verb := range (&program{}).build().Commands {
		for _, words := range [][]string{{}, {"-"}, {"--"}, {"--", ""}, {"x", "--"}, {"--", "x"}, {"x", "--", "y"}} {
			args := append(append([]string{"parley", verb.Name}, words...), completionFlag)
			var out, errOut bytes.Buffer
			code := Run(t.Context(), args, Streams{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut})
			if code != 0 || errOut.Len() > 0 || strings.Contains(out.String(), completionFlag) {
				t.Errorf("%q: exit code %d, %q, %q", args[1:], code, out.String(), errOut.String())
			}
			if finished := len(words) > 1 && words[len(words)-1] != "--"; finished && out.Len() > 0 {
				t.Errorf("%q: %q", args[1:], out.String())
			}
		}
	}
}

func TestJSONMovesNoCursor(t *testing.T) {
	var out bytes.Buffer
	p := &program{Streams: Streams{Stdout: &out}}
	const text = "a\u009b2J\x7f\u202ebc\u2028d é 漢 \U000e0001"
	if err := p.line(text); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(strings.TrimSuffix(out.String(), "\n"), func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("%q", out.String())
	}
	var back string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back != text {
		t.Errorf("%q became %q: %v", text, back, err)
	}
	if !strings.Contains(out.String(), "é 漢") {
		t.Errorf("what can be printed is escaped: %s", out.String())
	}
}
