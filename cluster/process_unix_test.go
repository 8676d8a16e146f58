//go:build unix

package cluster

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProcessStopped stops a real process long enough to be taken for dead.
func TestProcessStopped(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, "node1", "node2")
	log := &recorder{}
	cmd := child(t, "node3", nodes[0], log)
	waitStatus(t, nodes[1], "node3", Alive)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, nodes[0], "node3", Failed)
	waitStatus(t, nodes[1], "node3", Failed)
	time.Sleep(time.Second) // the sleep must be longer than what the node takes for a slow machine
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, nodes[0], "node3", Alive)
	waitStatus(t, nodes[1], "node3", Alive)
	eventually(t, "it noticed", func() bool { return log.has("this process was stopped for a while") })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, nodes[0], "node3", Left)
	waitStatus(t, nodes[1], "node3", Left)
}

// child runs a node in a process of its own, which logs to log.
func child(t testing.TB, name string, seed *Node, log io.Writer) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name+" "+seed.settings.Cluster+" "+seed.Addr())
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, _ := bufio.NewReader(out).ReadString('\n')
	if !strings.HasPrefix(line, "addr ") {
		t.Fatalf("child %s says %q", name, line)
	}
	return cmd
}
