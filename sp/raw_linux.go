package sp

import (
	"errors"
	"net"
	"syscall"
	"unsafe"
)

// rawConn gives system calls that do not wait, on a plain TCP connection; nil where
// there are none.
func rawConn(conn net.Conn) syscall.RawConn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readInto reads what is there, at most len(b) bytes; EAGAIN when nothing is.
func readInto(fd int, b []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, b)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// writeVector writes as much of v as the socket takes; EAGAIN when it takes nothing.
func writeVector(fd int, v [][]byte) (int, error) {
	if len(v) == 1 {
		for {
			n, err := syscall.Write(fd, v[0])
			if err != syscall.EINTR {
				return max(n, 0), err
			}
		}
	}
	var vector [maxVector]syscall.Iovec
	for i, b := range v {
		vector[i].Base = unsafe.SliceData(b)
		vector[i].SetLen(len(b))
	}
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&vector)), uintptr(len(v)))
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		default:
			return int(n), nil
		}
	}
}

// wouldBlock reports whether err says that the socket has, or takes, nothing now.
func wouldBlock(err error) bool { return errors.Is(err, syscall.EAGAIN) }
