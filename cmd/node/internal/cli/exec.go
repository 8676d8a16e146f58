package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

var errNobodyWaits = errors.New("nobody waits for the answer any more")

// maxText is how much of what a command writes to standard error becomes the
// error's text, in bytes.
const maxText = 1024

// run runs the command for a message; its output is the answer.
func (l *listener) run(ctx context.Context, m control.Message) control.Answer {
	out := &bounded{limit: control.MaxMessage}
	text := &bounded{limit: maxText, cut: true}
	cmd := shell(ctx, l.command)
	cmd.Env = append(os.Environ(),
		"PARLEY_FROM="+m.From, "PARLEY_TOPIC="+m.Topic, "PARLEY_ID="+m.ID, "PARLEY_KIND="+m.Kind)
	cmd.Stdin = bytes.NewReader(m.Body)
	cmd.Stdout, cmd.Stderr = out, text
	cmd.WaitDelay = time.Second // for grandchildren that keep the pipes
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the command was stopped: %w", context.Cause(ctx))
	case out.over:
		err = fmt.Errorf("the reply is over the limit of %d bytes", control.MaxMessage)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		if s := strings.TrimSpace(text.buf.String()); s != "" {
			err = fmt.Errorf("%s (%w)", s, err)
		}
	default:
		return control.Answer{Reply: out.buf.Bytes()}
	}
	l.say("%s from %s on %s failed: %s", m.Kind, m.From, quote(m.Topic), sentence(err.Error()))
	return control.Answer{Err: strings.ToValidUTF8(err.Error(), "\uFFFD")}
}

// bounded keeps what fits. Beyond that, a cut one forgets, another one fails.
type bounded struct {
	buf   bytes.Buffer
	limit int
	cut   bool
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.limit - b.buf.Len()
	if len(p) <= room {
		return b.buf.Write(p)
	}
	b.over = true
	b.buf.Write(p[:room])
	if b.cut {
		return len(p), nil
	}
	return room, errors.New("too much output")
}
