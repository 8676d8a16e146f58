package cli

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// setting runs a verb with an environment and returns what check sees of its flags.
func setting(t *testing.T, env map[string]string, check func(*call), args ...string) error {
	t.Helper()
	p := testProgram()
	p.env = func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	for _, c := range p.app.Commands {
		c.Action = p.verb(c.Name, 0, -1, func(c *call) error { check(c); return nil })
	}
	args, err := arrange(p.app, append([]string{"parley"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return p.app.RunContext(t.Context(), args)
}

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "parley.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := write(t, `timeout = "4s"`)
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want time.Duration
		from source
	}{
		{"default", nil, nil, 5 * time.Second, fromDefault},
		{"file", nil, []string{"--config", file}, 4 * time.Second, fromFile},
		{"file named by the environment", map[string]string{"PARLEY_CONFIG": file}, nil, 4 * time.Second, fromFile},
		{"environment", map[string]string{"PARLEY_TIMEOUT": "3s"}, []string{"--config", file}, 3 * time.Second, fromEnv},
		{"empty environment", map[string]string{"PARLEY_TIMEOUT": ""}, []string{"--config", file}, 4 * time.Second, fromFile},
		{"flag", map[string]string{"PARLEY_TIMEOUT": "3s"}, []string{"--config", file, "--timeout", "2s"}, 2 * time.Second, fromFlag},
		{"flag by its letter", map[string]string{"PARLEY_TIMEOUT": "3s"}, []string{"--config", file, "-T", "2s"}, 2 * time.Second, fromFlag},
	} {
		err := setting(t, c.env, func(got *call) {
			if got.Duration("timeout") != c.want || got.from["timeout"] != c.from {
				t.Errorf("%s: %v from %v, want %v from %v", c.name, got.Duration("timeout"), got.from["timeout"], c.want, c.from)
			}
		}, append([]string{"send", "n", "x"}, c.args...)...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestLists(t *testing.T) {
	file := write(t, `join = ["a:1", "b:2"]`)
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want []string
	}{
		{"none", nil, nil, nil},
		{"file", nil, []string{"--config", file}, []string{"a:1", "b:2"}},
		{"environment", map[string]string{"PARLEY_JOIN": "c:3, d:4,"}, []string{"--config", file}, []string{"c:3", "d:4"}},
		{"flags", map[string]string{"PARLEY_JOIN": "c:3"}, []string{"--config", file, "--join", "e:5", "--join", "f:6"}, []string{"e:5", "f:6"}},
		{"a comma in a flag is part of it", nil, []string{"--join", "e:5,f:6"}, []string{"e:5,f:6"}},
	} {
		err := setting(t, c.env, func(got *call) {
			if !slices.Equal(got.StringSlice("join"), c.want) {
				t.Errorf("%s: %q, want %q", c.name, got.StringSlice("join"), c.want)
			}
		}, append([]string{"agent"}, c.args...)...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What the environment of a container says to its agent is not for the verbs
// that somebody runs in there.
func TestAgentsSettingsAreItsOwn(t *testing.T) {
	env := map[string]string{
		"PARLEY_NAME": "node1", "PARLEY_JOIN": "seed:7946", "PARLEY_TAG": "role=web",
		"PARLEY_SEND_TOPIC": "orders", "PARLEY_MEMBERS_STATUS": "alive,left",
	}
	file := write(t, "name = \"node1\"\njoin = [\"seed\"]\ntag = [\"role=db\"]\n[members]\njson = true\n[ping]\ncount = 5\ninterval = \"1m\"\n")
	// A shared flag is no verb's own.
	if err := setting(t, nil, func(*call) {}, "members", "--config", file); err == nil || !strings.Contains(err.Error(), `"members.json"`) {
		t.Errorf("a shared flag in a verb's table: %v", err)
	}
	file = write(t, "name = \"node1\"\njoin = [\"seed\"]\ntag = [\"role=db\"]\njson = true\n[ping]\ncount = 5\ninterval = \"1m\"\n")
	if err := setting(t, env, func(c *call) {
		if c.String("name") != "" || len(c.StringSlice("tag")) > 0 || len(c.StringSlice("join")) > 0 {
			t.Error("members filters by what the agent is called")
		}
		if !slices.Equal(c.StringSlice("status"), []string{"alive", "left"}) || !c.Bool("json") {
			t.Errorf("status %q, json %v", c.StringSlice("status"), c.Bool("json"))
		}
	}, "members", "--config", file); err != nil {
		t.Error(err)
	}
	if err := setting(t, env, func(c *call) {
		if c.String("topic") != "orders" || len(c.StringSlice("join")) > 0 {
			t.Errorf("topic %q, join %q", c.String("topic"), c.StringSlice("join"))
		}
	}, "send", "n", "x"); err != nil {
		t.Error(err)
	}
	if err := setting(t, env, func(c *call) {
		if c.Int("count") != 5 || c.Duration("interval") != time.Minute {
			t.Errorf("count %d, interval %v", c.Int("count"), c.Duration("interval"))
		}
	}, "ping", "n", "--config", file); err != nil {
		t.Error(err)
	}
	if err := setting(t, env, func(c *call) {
		if c.String("name") != "node1" || !slices.Equal(c.StringSlice("tag"), []string{"role=web"}) {
			t.Errorf("name %q, tag %q", c.String("name"), c.StringSlice("tag"))
		}
	}, "agent", "--config", file); err != nil {
		t.Error(err)
	}
}

func TestBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		name, file string
		env        map[string]string
		want       []string
	}{
		{"unknown key", `nmae = "x"`, nil, []string{`"nmae"`, "did you mean name?"}},
		{"unknown table", "[sned]\ntopic = \"x\"", nil, []string{`"sned.topic"`}},
		{"another verb's flag at the top", `topic = "x"`, nil, []string{`"topic"`}},
		{"no TOML", `name = `, nil, []string{"configuration file"}},
		{"bad value", `timeout = "soon"`, nil, []string{"timeout", `"soon"`, "write 5s"}},
		{"list for one value", `timeout = ["1s", "2s"]`, nil, []string{"timeout", "one value"}},
		{"bad type", `timeout = 2020-01-01`, nil, []string{"timeout"}},
		{"bad list", `join = [["a"]]`, nil, []string{"join"}},
		{"config in the file", `config = "x"`, nil, []string{`"config"`}},
		{"bad environment", "", map[string]string{"PARLEY_TIMEOUT": "soon"}, []string{"PARLEY_TIMEOUT", `"soon"`}},
	} {
		err := setting(t, c.env, func(*call) { t.Errorf("%s: taken", c.name) }, "send", "n", "x", "--config", write(t, c.file))
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s in it", c.name, err, want)
			}
		}
	}
	if err := setting(t, nil, func(*call) {}, "send", "n", "x", "--config", "/does/not/exist"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestKey(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	other := base64.StdEncoding.EncodeToString(make([]byte, 16))
	file := func(s string) string {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		size int
		err  string
	}{
		{"none", nil, nil, 0, ""},
		{"file", nil, []string{"--key-file", file(good + "\n")}, 32, ""},
		{"environment", map[string]string{"PARLEY_KEY": good}, nil, 32, ""},
		{"flag", nil, []string{"--key", other}, 16, ""},
		{"flag beats environment", map[string]string{"PARLEY_KEY": good}, []string{"--key-file", file(other)}, 16, ""},
		{"both flags", nil, []string{"--key-file", file(other), "--key", good}, 0, "both"},
		{"no base64", nil, []string{"--key", "s3cr3t!!"}, 0, "not base64"},
		{"short", nil, []string{"--key", "c2hvcnQ="}, 0, "5 bytes"},
		{"empty file", nil, []string{"--key-file", file("\n")}, 0, "empty"},
		{"no file", nil, []string{"--key-file", "/does/not/exist"}, 0, "keygen"},
	} {
		err := setting(t, c.env, func(got *call) {
			key, err := got.key()
			switch {
			case c.err == "" && (err != nil || len(key) != c.size):
				t.Errorf("%s: %d bytes, %v", c.name, len(key), err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			case err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), good)):
				t.Errorf("%s: the key is in the error: %v", c.name, err)
			}
		}, append([]string{"agent"}, c.args...)...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"web-1": "web-1", "web-1.example.org": "web-1", "Jürgens PC": "J-rgens-PC", "_x": "x", "-": "", "": "",
		strings.Repeat("a", 80): strings.Repeat("a", 63),
	} {
		if got := cleanName(in); got != want {
			t.Errorf("cleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

// Every flag can be set in the environment, and the help says how.
func TestHelpNamesTheEnvironment(t *testing.T) {
	for _, c := range testProgram().app.Commands {
		for _, f := range c.Flags {
			d, ok := f.(cli.DocGenerationFlag)
			if name := f.Names()[0]; ok && name != "help" && !strings.Contains(d.GetUsage(), "[$PARLEY_") {
				t.Errorf("%s --%s has no variable", c.Name, name)
			}
		}
	}
}
