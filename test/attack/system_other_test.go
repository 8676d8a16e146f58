//go:build !unix

package attack

import (
	"errors"
	"testing"
	"time"
)

type system struct{}

func openSystem() *system          { return &system{} }
func (*system) files() int         { return -1 }
func (*system) rss() int64         { return -1 }
func (*system) cpu() time.Duration { return -1 }

func (*system) limitFiles(int) error { return errors.New("this system has no limit of descriptors") }

func needFiles(testing.TB, uint64) {}
