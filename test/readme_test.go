package test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/parley-mesh/parley/test/harness"
)

// Commands of the README that stay in their terminal: they are started, and
// stopped at the end.
var readmeForeground = []string{"parley agent", "parley listen", "parley events"}

// Commands of the README that are run elsewhere, and where.
var readmeElsewhere = map[string]string{
	"go test ./...":     "this is it",
	"docker compose":    "test/compose runs them where an engine answers",
	"go run ./cmd/node": "", // run here
}

// Commands of the README that fail on purpose, with their exit codes.
var readmeFails = map[string]int{
	`parley send node22 "hello"`: 3,
}

// TestREADME runs every command that README.md shows, in the order in which it
// shows them, with the port of the tour moved to a free one.
func TestREADME(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the README's commands are for a POSIX shell")
	}
	if testing.Short() {
		t.Skip("builds the program and runs a cluster")
	}
	commands := shellCommands(t, filepath.Join("..", "README.md"))
	if len(commands) < 10 {
		t.Fatalf("found %d commands in README.md, expected the whole tour", len(commands))
	}

	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	seed := freePort(t)
	shell := readmeShell{
		t: t, root: root,
		env: append(os.Environ(),
			"PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"),
			"XDG_RUNTIME_DIR="+filepath.Join(dir, "run"),
		),
		rewrite: strings.NewReplacer(
			"-o bin/parley", "-o "+filepath.Join(dir, "parley"),
			"--name node1", "--name node1 --profile local --bind "+seed,
			"--name node2", "--name node2 --profile local",
			"--join 127.0.0.1", "--join "+seed,
		),
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, command := range commands {
		shell.run(command)
	}
}

type readmeShell struct {
	t       *testing.T
	root    string
	env     []string
	rewrite *strings.Replacer
}

func (s *readmeShell) run(command string) {
	s.t.Helper()
	for prefix, where := range readmeElsewhere {
		if strings.HasPrefix(command, prefix) && where != "" {
			s.t.Logf("%-60s (%s)", command, where)
			return
		}
	}
	if assignment, ok := strings.CutPrefix(command, "export "); ok {
		name, value, _ := strings.Cut(assignment, "=")
		if name != "PATH" { // ours leads to the program already
			s.env = append(s.env, name+"="+strings.Trim(value, `"'`))
		}
		return
	}
	line := s.rewrite.Replace(command)
	for _, prefix := range readmeForeground {
		if strings.HasPrefix(command, prefix) {
			s.start(command, line)
			return
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := s.command(ctx, line)
	out, err := cmd.CombinedOutput()
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	s.t.Logf("$ %s\n%s", command, out)
	if want := readmeFails[command]; code != want {
		s.t.Fatalf("%s: exit code %d, want %d", command, code, want)
	}
}

// start runs a command that stays, and waits until it says that it is there.
func (s *readmeShell) start(command, line string) {
	s.t.Helper()
	ready := ""
	if strings.HasPrefix(command, "parley agent") {
		ready = filepath.Join(s.t.TempDir(), "ready")
		line += " --ready-file " + ready
	}
	var out bytes.Buffer // read after Wait only
	ctx, cancel := context.WithCancel(context.Background())
	cmd := s.command(ctx, "exec "+line)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	s.t.Cleanup(func() {
		select {
		case <-ended:
			s.t.Errorf("%s ended by itself", command)
		default:
		}
		cancel()
		<-ended
		s.t.Logf("$ %s\n%s", command, out.Bytes())
	})
	harness.Eventually(s.t, time.Minute, func() bool {
		select {
		case <-ended:
			return true // reported above
		default:
		}
		if ready == "" {
			return s.attached(command)
		}
		_, err := os.Stat(ready)
		return err == nil
	}, "%s is ready", command)
}

// attached asks the agent whether the listener of the tour is there.
func (s *readmeShell) attached(command string) bool {
	if !strings.HasPrefix(command, "parley listen") {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.command(ctx, `parley request --topic shout node2 ""`).Run() == nil
}

func (s *readmeShell) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = s.root, s.env
	return cmd
}

// shellCommands returns the lines of all ```sh blocks.
func shellCommands(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "```sh":
			inside = true
		case strings.HasPrefix(line, "```"):
			inside = false
		case inside && line != "" && !strings.HasPrefix(line, "#"):
			commands = append(commands, line)
		}
	}
	return commands
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
