package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const suffix = ".sock"

// probeTime bounds the question whether somebody listens on a socket.
const probeTime = time.Second

// Dir is where agents of this user have their sockets when nobody says
// otherwise: "parley" in $XDG_RUNTIME_DIR, or "parley-UID" in the directory for
// temporary files when there is none.
func Dir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return filepath.Join(dir, "parley")
		}
	}
	return filepath.Join(os.TempDir(), "parley-"+userID())
}

// PathIn is the path of the socket of the agent of that name in dir.
func PathIn(dir, name string) string { return filepath.Join(dir, name+suffix) }

// CheckDir makes sure that dir, if it is there, is a directory that belongs to
// this user and to nobody else.
func CheckDir(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("control directory %s is not a directory; remove it, or choose a socket with --socket", dir)
	}
	if err := ownedByUser(info); err != nil {
		return fmt.Errorf("control directory %s %w; choose a socket elsewhere with --socket", dir, err)
	}
	return nil
}

// Socket is the listening end, and the right to it.
type Socket struct {
	Path     string
	listener net.Listener
	lock     *lock
	once     sync.Once
	err      error
}

// LiveError says that an agent already listens on the socket.
type LiveError struct{ Path, Detail string }

func (e *LiveError) Error() string {
	return fmt.Sprintf("an agent already runs with the control socket %s%s", e.Path, e.Detail)
}

// Listen makes the socket at path, with mode 0600, in a directory that is made
// with mode 0700 when it is not there. A socket that was left behind is taken
// over; one on which an agent listens is a *LiveError. Of two that call at the
// same time one wins: the right to the socket is a lock on the file beside it,
// which the kernel takes back from a process that ends, however it ends.
func Listen(path string) (*Socket, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := CheckLength(path); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("control directory: %w", err)
	}
	if dir == Dir() {
		if err := CheckDir(dir); err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("control directory: %w", err)
		}
	}
	lock, err := acquire(path + ".lock")
	if errors.Is(err, errLocked) {
		return nil, &LiveError{Path: path}
	}
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	s := &Socket{Path: path, lock: lock}
	if err := s.listen(); err != nil {
		lock.release()
		return nil, err
	}
	return s, nil
}

func (s *Socket) listen() error {
	info, err := os.Lstat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case !isSocket(info):
		return fmt.Errorf("control socket: %s is there and is not a socket; remove it, or choose another --socket", s.Path)
	case Live(s.Path):
		return &LiveError{Path: s.Path, Detail: " (of another program, or of an older version)"}
	default:
		if err := os.Remove(s.Path); err != nil {
			return fmt.Errorf("control socket left behind: %w", err)
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return c.Control(restrict) }}
	s.listener, err = lc.Listen(context.Background(), "unix", s.Path)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(s.Path, 0o600); err != nil {
		_ = s.listener.Close()
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// isSocket also takes what Windows shows a socket as.
func isSocket(info fs.FileInfo) bool {
	return info.Mode()&fs.ModeSocket != 0 || runtime.GOOS == "windows" && info.Mode()&fs.ModeIrregular != 0
}

// Close stops listening and removes the socket and its lock.
func (s *Socket) Close() error {
	s.once.Do(func() {
		err := s.listener.Close() // removes the socket
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		s.err = err
		s.lock.release()
	})
	return s.err
}

// CheckLength refuses a path that the kernel would cut.
func CheckLength(path string) error {
	limit := 107
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		limit = 103
	}
	if len(path) > limit {
		return fmt.Errorf("control socket: the path %s has %d bytes, and a unix socket's can have %d; choose a shorter one with --socket", path, len(path), limit)
	}
	return nil
}

// Live reports whether somebody listens on the socket at path.
func Live(path string) bool {
	c, err := net.DialTimeout("unix", path, probeTime)
	if err != nil {
		// A queue that is full has somebody behind it, stopped perhaps.
		return errors.Is(err, syscall.EAGAIN) || isTimeout(err)
	}
	_ = c.Close()
	return true
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Found is an agent that listens.
type Found struct{ Name, Path string }

// Find lists the live agents in dir, by name.
func Find(dir string) ([]Found, error) {
	if err := CheckDir(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("control directory: %w", err)
	}
	var found []Found
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if path := filepath.Join(dir, e.Name()); ok && Live(path) {
			found = append(found, Found{Name: name, Path: path})
		}
	}
	slices.SortFunc(found, func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// Choose finds the socket of the agent that is meant: the one at path, or else
// the one called agent, or else the only one that there is. Its errors are
// *Faults.
func Choose(path, agent string) (string, error) {
	if path != "" {
		if err := CheckLength(path); err != nil {
			return "", NewFault(CodeUsage, "", err.Error(), err)
		}
		return path, nil
	}
	dir := Dir()
	found, err := Find(dir)
	if err != nil {
		return "", NewFault(CodeUnreachable, "", err.Error(), err)
	}
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = f.Name
	}
	if agent != "" {
		if i := slices.Index(names, agent); i >= 0 {
			return found[i].Path, nil
		}
		other := "start it with \"parley agent --name NAME\""
		if len(found) > 0 {
			other = "running here: " + strings.Join(names, ", ")
		}
		return "", NewFault(CodeUnreachable, "", fmt.Sprintf("no agent called %s runs here (looked in %s); %s", strconv.Quote(agent), dir, other), nil)
	}
	switch len(found) {
	case 0:
		return "", NewFault(CodeUnreachable, "", fmt.Sprintf(
			"no agent runs here (looked in %s); start one with \"parley agent\", name its socket with --socket, or reach the cluster without an agent with --join HOST:PORT", dir), nil)
	case 1:
		return found[0].Path, nil
	}
	return "", NewFault(CodeAmbiguous, "", fmt.Sprintf(
		"%d agents run here: %s; say which one with --agent NAME (or PARLEY_AGENT)", len(found), strings.Join(names, ", ")), nil)
}
