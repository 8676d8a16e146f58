//go:build unix

package attack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// system counts what the system gives to this process. The files of /proc are
// opened in good time: later there may be no descriptors left.
type system struct{ fds, statm *os.File }

func openSystem() *system {
	fds, _ := os.Open("/proc/self/fd")
	statm, _ := os.Open("/proc/self/statm")
	return &system{fds, statm}
}

func (s *system) files() int {
	if s.fds == nil {
		return -1
	}
	if _, err := s.fds.Seek(0, io.SeekStart); err != nil {
		return -1
	}
	names, err := s.fds.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names)
}

func (s *system) rss() int64 {
	if s.statm == nil {
		return -1
	}
	b := make([]byte, 200)
	n, _ := s.statm.ReadAt(b, 0)
	fields := bytes.Fields(b[:n])
	if len(fields) < 2 {
		return -1
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return -1
	}
	return pages * int64(os.Getpagesize())
}

func (*system) cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return -1
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// limitFiles lets this process open n descriptors more than it has.
func (s *system) limitFiles(n int) error {
	open := s.files()
	if open < 0 {
		return errors.New("open descriptors are counted in /proc, which is not there")
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("limit of descriptors: %w", err)
	}
	lim.Cur = min(lim.Max, uint64(open+n))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("limit of descriptors: %w", err)
	}
	return nil
}

// needFiles skips the test where neither this process nor the target can have so
// many descriptors. Go programs have their limit raised as far as it goes.
func needFiles(t testing.TB, n uint64) {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Skipf("limit of descriptors: %v", err)
	}
	if have := uint64(lim.Cur); have < n {
		t.Skipf("needs %d descriptors, ulimit -n is %d", n, have)
	}
}
