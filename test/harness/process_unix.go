//go:build unix

package harness

import "syscall"

// Suspend stops the process where it is, as a machine that hangs; Resume goes on.
func (p *Process) Suspend() { p.t.Helper(); p.signal(syscall.SIGSTOP) }

// Resume ends a Suspend.
func (p *Process) Resume() { p.t.Helper(); p.signal(syscall.SIGCONT) }
