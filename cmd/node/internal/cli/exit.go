package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

// signalError says that a signal ended the program.
type signalError struct {
	signal os.Signal
	err    error // what the call said
}

func (e *signalError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	return "interrupted"
}
func (e *signalError) Unwrap() error { return e.err }

// exitCode is 128 and the signal's number, as shells have it.
func (e *signalError) exitCode() int {
	if s, ok := e.signal.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return 1
}

// report prints err as one sentence and returns the exit code.
func (p *program) report(err error) int {
	if err == nil {
		return 0
	}
	p.say("parley: %s", sentence(err.Error()))
	var sig *signalError
	if errors.As(err, &sig) {
		return sig.exitCode()
	}
	var f *control.Fault
	if errors.As(err, &f) {
		return f.Exit
	}
	return 1
}

// sentence takes out of a text what would move a cursor: parts of it come from
// other nodes.
func sentence(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == '\uFFFD' }) {
		return s
	}
	quoted := quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// interruptible runs do with a context that the first interrupt ends; the second
// ends the program. An error of do after an interrupt is a *signalError.
func (c *call) interruptible(do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(c.Context.Context)
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	// A terminal that goes away is an interrupt too: commands of listen --exec have
	// process groups of their own and would outlive it.
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	go func() { // ended by the deferred cancel
		select {
		case s := <-signals:
			cancel(&signalError{signal: s})
			signal.Stop(signals) // the next one ends the program
		case <-ctx.Done():
		}
	}()
	err := do(ctx)
	var sig *signalError
	if err != nil && errors.As(context.Cause(ctx), &sig) {
		return &signalError{signal: sig.signal, err: err}
	}
	return err
}

// timed is interruptible within --timeout.
func (c *call) timed(do func(context.Context) error) error {
	d := c.Duration("timeout")
	if d <= 0 {
		return usage("--timeout is %v; it must be more than nothing", d)
	}
	return c.interruptible(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return do(ctx)
	})
}
