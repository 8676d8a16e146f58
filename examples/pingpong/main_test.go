package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-mesh/parley/test/harness"
)

// playerEnv makes the test binary be pingpong, so that the tests need no second build.
const playerEnv = "PINGPONG_TEST_PLAYER"

func TestMain(m *testing.M) {
	if os.Getenv(playerEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// process is a pingpong that runs.
type process struct {
	cmd  *exec.Cmd
	log  *harness.Log
	done chan struct{} // closed when it has ended
}

func play(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), log: harness.NewLog(t, args[0]), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), playerEnv+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// timeline returns the lines that were printed, without their times.
func (p *process) timeline() (lines []string) {
	for line := range strings.Lines(p.log.String()) {
		if _, line, ok := strings.Cut(line, " "); ok {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// await returns the submatches of pattern in the timeline.
func (p *process) await(t *testing.T, pattern string) (match []string) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, func() bool {
		match = regexp.MustCompile(pattern).FindStringSubmatch(strings.Join(p.timeline(), "\n"))
		return match != nil
	}, "%s in the timeline", pattern)
	return match
}

// end waits until the process has exited by itself, with 0.
func (p *process) end(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatal("still running")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
}

// has fails unless the timeline holds the lines, in this order, other lines between them or not.
func (p *process) has(t *testing.T, lines ...string) {
	t.Helper()
	rest := p.timeline()
	for _, want := range lines {
		for len(rest) > 0 && rest[0] != want {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			t.Fatalf("%q is missing, or comes too early, in\n%s", want, strings.Join(p.timeline(), "\n"))
		}
		rest = rest[1:]
	}
}

func TestUnicast(t *testing.T) {
	t.Parallel()
	node1 := play(t, "node1", "--bind", "127.0.0.1:0", "--count", "3")
	addr := node1.await(t, `node1 listens on (\S+)`)[1]
	node2 := play(t, "node2", "--join", addr, "--interval", "200ms", "--count", "3")
	node2.end(t)
	node1.end(t)

	node2.has(t, "node2 joined "+addr,
		"node2 -> node1  ping 1", "node2 <- node1  pong 2",
		"node2 -> node1  ping 3", "node2 <- node1  pong 4",
		"node2 -> node1  ping 5", "node2 <- node1  pong 6", "node2 left")
	node1.has(t,
		"node1 <- node2  ping 1", "node1 -> node2  pong 2",
		"node1 <- node2  ping 3", "node1 -> node2  pong 4",
		"node1 <- node2  ping 5", "node1 -> node2  pong 6", "node1 left")
}

// A third node hears what two others say to everybody, and nothing of what they say
// to each other.
func TestWhoHears(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no interrupt for another process on Windows")
	}
	for _, way := range []struct {
		via string
		all bool
	}{{"unicast", false}, {"reliable", true}, {"gossip", true}} {
		t.Run(way.via, func(t *testing.T) {
			t.Parallel()
			node1 := play(t, "node1", "--bind", "127.0.0.1:0", "--via", way.via)
			addr := node1.await(t, `node1 listens on (\S+)`)[1]
			// It pings once an hour: it only hears.
			node3 := play(t, "node3", "--join", addr, "--via", way.via, "--interval", "1h")
			node3.await(t, `node3 joined`)
			node2 := play(t, "node2", "--join", addr, "--via", way.via, "--interval", "500ms", "--count", "4")
			node2.await(t, `node2 <- node1  pong 2`)
			node1.await(t, `node1 <- node2  ping 1`)
			if way.all {
				node3.await(t, `node3 <- node2  ping \d+`)
				node3.await(t, `node3 <- node1  pong \d+`)
			}
			if way.via == "reliable" {
				node2.await(t, `node2    ping \d+ handled by \[node1 node3\]`)
			}
			node2.end(t)
			for _, p := range []*process{node3, node1} {
				if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
				p.end(t)
			}
			if heard := fmt.Sprint(node3.timeline()); !way.all && strings.Contains(heard, "<-") {
				t.Errorf("node3 heard what was not for it: %s", heard)
			}
		})
	}
}
