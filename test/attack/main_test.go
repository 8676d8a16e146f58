// Package attack shows from outside the process what package sp promises about
// strangers: the target is a process of its own, and the attacker has nothing but
// TCP connections to it.
//
// The target is this test's own binary, started again. It listens, and tells on
// request how it fares: its Stats, goroutines, descriptors, memory and CPU time.
// Where the question is what others notice, a third process asks it questions all
// the while and measures how long the answers take.
package attack

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Environment variables that make this binary one of the other two processes.
const (
	envTarget = "PARLEY_ATTACK_TARGET" // a targetSpec
	envAsker  = "PARLEY_ATTACK_ASKER"  // the hello of the target to ask
)

func TestMain(m *testing.M) {
	if v := os.Getenv(envTarget); v != "" {
		var spec targetSpec
		exitIf(json.Unmarshal([]byte(v), &spec))
		exitIf(runTarget(spec))
		return
	}
	if v := os.Getenv(envAsker); v != "" {
		var of hello
		exitIf(json.Unmarshal([]byte(v), &of))
		exitIf(runAsker(of))
		return
	}
	goleak.VerifyTestMain(m)
}

func exitIf(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
