package cluster

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain looks for leaked goroutines as goleak.VerifyTestMain does, with more
// patience: memberlist's Shutdown does not wait for its own, which end with
// their last probe.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		runChild()
		return
	}
	code := m.Run()
	if code == 0 {
		var leaked error
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			if leaked = goleak.Find(); leaked == nil {
				break
			}
		}
		if leaked != nil {
			fmt.Fprintln(os.Stderr, "goroutines leaked:", leaked)
			code = 1
		}
	}
	os.Exit(code)
}
