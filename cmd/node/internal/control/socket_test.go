package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestSocketModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	path := filepath.Join(shortDir(t), "new", "n.sock")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %#o, want %#o", file, got, want)
		}
	}
}

func TestLiveSocketIsReported(t *testing.T) {
	path := filepath.Join(shortDir(t), "n.sock")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	var live *LiveError
	if _, err := Listen(path); !errors.As(err, &live) || live.Path != path {
		t.Errorf("a second one: %v", err)
	}
	if !Live(path) {
		t.Error("the first one's socket does not answer any more")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	for _, left := range []string{path, path + ".lock"} {
		if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was left behind: %v", left, err)
		}
	}
	s, err = Listen(path)
	if err != nil {
		t.Fatalf("after the first one ended: %v", err)
	}
	s.Close()
}

// A process that was killed leaves its files behind, and nobody behind them.
func TestStaleSocketIsTakenOver(t *testing.T) {
	path := filepath.Join(shortDir(t), "n.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("the test left no stale socket", err)
	}
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !Live(path) {
		t.Error("nobody answers on the socket that was taken over")
	}
}

func TestOtherProgramsSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "n.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var live *LiveError
	if _, err := Listen(path); !errors.As(err, &live) {
		t.Errorf("got %v", err)
	}
	if !Live(path) {
		t.Error("it does not answer any more")
	}
}

func TestOtherFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "n.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// Of many that start at once with one stale socket before them, one wins.
func TestOneWinner(t *testing.T) {
	path := filepath.Join(shortDir(t), "n.sock")
	for range 20 {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()

		var (
			mu   sync.Mutex
			wins []*Socket
			wg   sync.WaitGroup
		)
		for range 8 {
			wg.Go(func() {
				s, err := Listen(path)
				var live *LiveError
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					wins = append(wins, s)
				case !errors.As(err, &live):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(wins) != 1 {
			t.Fatalf("%d have the socket", len(wins))
		}
		if !Live(path) {
			t.Fatal("the winner's socket does not answer")
		}
		wins[0].Close()
	}
}

func TestPathTooLong(t *testing.T) {
	path := filepath.Join(shortDir(t), strings.Repeat("x", 120)+".sock")
	_, err := Listen(path)
	if err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("Listen: %v", err)
	}
	if _, err := Choose(path, ""); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("Choose: %v", err)
	}
}

func TestDirOfAnotherUser(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	base := shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", base)
	dir := Dir()
	if dir != filepath.Join(base, "parley") {
		t.Fatalf("Dir() = %s", dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(PathIn(dir, "n")); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("a directory that others can write: %v", err)
	}
	if _, err := Choose("", ""); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("a client: %v", err)
	}
	if os.Getuid() == 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(PathIn(dir, "n")); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("a directory of another user: %v", err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckDir(dir); err == nil {
		t.Error("a file instead of a directory was taken")
	}
}

func TestDirWithoutRuntimeDir(t *testing.T) {
	for _, xdg := range []string{"", "relative", filepath.Join(shortDir(t), "absent")} {
		t.Setenv("XDG_RUNTIME_DIR", xdg)
		if got := Dir(); filepath.Dir(got) != filepath.Clean(os.TempDir()) || !strings.HasPrefix(filepath.Base(got), "parley-") {
			t.Errorf("with XDG_RUNTIME_DIR=%q Dir() = %s", xdg, got)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", shortDir(t))
	code := func(path, agent string) Code {
		got, err := Choose(path, agent)
		var f *Fault
		if errors.As(err, &f) {
			return f.Code
		}
		return Code(filepath.Base(got))
	}
	expect := func(path, agent string, want Code) {
		t.Helper()
		if got := code(path, agent); got != want {
			t.Errorf("Choose(%q, %q) = %s, want %s", path, agent, got, want)
		}
	}
	expect("", "", CodeUnreachable)
	expect("", "n1", CodeUnreachable)

	one, err := Listen(PathIn(Dir(), "n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	// What a killed agent left does not count.
	l, err := net.Listen("unix", PathIn(Dir(), "dead"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	expect("", "", "n1.sock")
	expect("", "n1", "n1.sock")
	expect("", "dead", CodeUnreachable)

	two, err := Listen(PathIn(Dir(), "n2"))
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	expect("", "", CodeAmbiguous)
	expect("", "n2", "n2.sock")
	expect("", "n3", CodeUnreachable)
	expect("/any/where.sock", "n2", "where.sock")

	_, err = Choose("", "")
	if !strings.Contains(err.Error(), "n1, n2") || !strings.Contains(err.Error(), "--agent") {
		t.Errorf("several agents: %v", err)
	}
}
