package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

// body is the message's body: the argument at position at, --file, or standard
// input, which "-" names too.
func (c *call) body(at int) ([]byte, error) {
	arg, given := c.Args().Get(at), c.NArg() > at
	if file := c.String("file"); file != "" {
		if given {
			return nil, usage("there is both a BODY and a --file; give one of them")
		}
		f, err := os.Open(file)
		if err != nil {
			return nil, usage("the body could not be read: %v", err)
		}
		defer f.Close()
		return readBody(file, f)
	}
	if given && arg != "-" {
		return checkSize([]byte(arg))
	}
	if !given && isTerminal(c.Stdin) {
		return nil, usage("there is no BODY; give it as an argument, with --file, or on standard input")
	}
	b, err := readBody("standard input", c.Stdin)
	if err == nil && len(b) == 0 && !given {
		return nil, usage("standard input is empty; to send an empty body give the argument \"\", or - for standard input")
	}
	return b, err
}

func readBody(what string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, control.MaxMessage+1))
	if err != nil {
		return nil, usage("the body could not be read from %s: %v", what, err)
	}
	if len(b) <= control.MaxMessage {
		return b, nil
	}
	size := fmt.Sprintf("more than %d bytes", control.MaxMessage)
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = fmt.Sprintf("%d bytes", info.Size())
		}
	}
	return nil, control.TooLarge("the body from "+what, size)
}

func checkSize(b []byte) ([]byte, error) {
	if len(b) > control.MaxMessage {
		return nil, control.TooLarge("the body", fmt.Sprintf("%d bytes", len(b)))
	}
	return b, nil
}

// isTerminal reports whether r or w is a device that a person may sit at.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if errors.Is(err, os.ErrInvalid) || err != nil {
		return true // closed: there is nothing to read
	}
	return info.Mode()&os.ModeCharDevice != 0
}
