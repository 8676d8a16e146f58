// Package compose_test proves the Dockerfile and docker-compose.yml on a real engine.
package compose_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCompose runs run.sh, which says what it checks.
func TestCompose(t *testing.T) {
	if os.Getenv("PARLEY_TEST_COMPOSE") == "" {
		t.Skip("builds an image and takes minutes: set PARLEY_TEST_COMPOSE=1 to run it")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here: ", err)
	}
	cmd := exec.Command(bash, "run.sh")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var skipped, last string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
		t.Log(last)
		if reason, ok := strings.CutPrefix(last, "SKIP: "); ok {
			skipped = reason
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(last, "compose: ") {
		if skipped == "" {
			t.Fatal("run.sh ended without saying how many checks passed")
		}
		t.Skip(skipped)
	}
}
