package test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-mesh/parley/test/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, func() error { return goleak.Find() }))
}
