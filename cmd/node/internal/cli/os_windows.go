package cli

import (
	"context"
	"os"
	"os/exec"
)

func shell(ctx context.Context, line string) *exec.Cmd {
	return exec.CommandContext(ctx, "cmd", "/C", line)
}

// There is no signal for it on Windows.
var reload os.Signal

func ignoreBrokenPipe() {}
