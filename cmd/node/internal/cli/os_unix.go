//go:build unix

package cli

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// shell is a command line in a process group of its own, so that all of it ends
// with ctx, and an interrupt at the terminal is ours to pass on.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			return os.ErrProcessDone
		}
		return nil
	}
	return cmd
}

// reload is the signal that makes an agent read its configuration again.
var reload os.Signal = syscall.SIGHUP

// ignoreBrokenPipe turns the signal of a write to a pipe that nobody reads into
// an error of the write.
func ignoreBrokenPipe() { signal.Ignore(syscall.SIGPIPE) }
