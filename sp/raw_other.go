//go:build !linux

package sp

import (
	"errors"
	"net"
	"syscall"
)

// Elsewhere all reads and writes go by way of net.Conn.

func rawConn(net.Conn) syscall.RawConn { return nil }

func readInto(int, []byte) (int, error)      { return 0, errors.ErrUnsupported }
func writeVector(int, [][]byte) (int, error) { return 0, errors.ErrUnsupported }
func wouldBlock(error) bool                  { return false }
