package main

import (
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The peers in C: the file, and what it is linked with.
var native = map[string]string{"zmq": "-lzmq", "nng": "-lnng"}

//go:embed c
var sources embed.FS

// buildNative compiles a peer in C into dir. version is what the program says of its
// library.
func buildNative(name, dir string) (path, version string, err error) {
	if err := os.CopyFS(dir, sources); err != nil && !os.IsExist(err) {
		return "", "", err
	}
	path = filepath.Join(dir, name)
	out, err := exec.Command("cc", "-O2", "-o", path, filepath.Join(dir, "c", name+".c"), native[name], "-lpthread").CombinedOutput()
	if err != nil {
		return "", "", &buildError{err, firstError(string(out))}
	}
	said, err := exec.Command(path).Output()
	return path, strings.TrimSpace(string(said)), err
}

// buildError is why a peer is not there.
type buildError struct {
	err  error
	said string
}

func (e *buildError) Error() string {
	if e.said == "" {
		return e.err.Error()
	}
	return e.said
}

// firstError is the line of a compiler's output that says what is wrong.
func firstError(out string) string {
	for line := range strings.Lines(out) {
		if _, what, ok := strings.Cut(line, "error: "); ok {
			return strings.TrimSpace(what)
		}
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}
