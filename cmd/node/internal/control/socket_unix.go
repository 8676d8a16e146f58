//go:build unix

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

func userID() string { return strconv.Itoa(os.Getuid()) }

// ownedByUser says what is wrong with who may use a directory.
func ownedByUser(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("belongs to user %d, and this is user %d", st.Uid, os.Getuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("can be written by others (mode %#o)", info.Mode().Perm())
	}
	return nil
}

// restrict gives the socket its mode before it has a name. Not every kernel can;
// Listen changes the mode once more.
func restrict(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) }

var errLocked = errors.New("locked by another process")

// lock is the exclusive right to a path. The kernel ends it with the process.
type lock struct{ file *os.File }

// acquire makes the file at path and locks it.
func acquire(path string) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, errLocked
		}
		if errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			continue
		}
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Whoever held it before may have removed the file since it was opened
		// here. Then the lock is on a file that nobody else will find.
		mine, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(mine, there) {
			return &lock{f}, nil
		}
		_ = f.Close()
	}
}

// release removes the file while it is still locked, then lets go.
func (l *lock) release() {
	_ = os.Remove(l.file.Name())
	_ = l.file.Close()
}
