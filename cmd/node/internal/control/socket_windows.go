package control

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strings"
	"syscall"
)

func userID() string {
	u, err := user.Current()
	if err != nil {
		return "user"
	}
	return strings.Map(func(r rune) rune {
		if r == '\\' || r == '/' || r == ':' {
			return '-'
		}
		return r
	}, u.Uid)
}

// The directory for temporary files is the user's own on Windows.
func ownedByUser(fs.FileInfo) error { return nil }

func restrict(uintptr) {}

var errLocked = errors.New("locked by another process")

// lock is the exclusive right to a path: a file that is open and shared with
// nobody. The kernel closes it with the process.
type lock struct {
	handle syscall.Handle
	path   string
}

func acquire(path string) (*lock, error) {
	const sharingViolation = syscall.Errno(32)
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, sharingViolation) {
		return nil, errLocked
	}
	if err != nil {
		return nil, err
	}
	return &lock{handle: h, path: path}, nil
}

func (l *lock) release() {
	_ = syscall.CloseHandle(l.handle)
	_ = os.Remove(l.path)
}
