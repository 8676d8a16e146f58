package cli

import (
	"context"
	"encoding/base64"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/parley-mesh/parley/cmd/node/internal/agent"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

// answerTime bounds how long the agent may take to hear an answer.
const answerTime = 5 * time.Second

func (p *program) listenCommand() *cli.Command {
	return &cli.Command{
		Name: "listen", Category: "Messages",
		Usage: "print, or answer, what arrives at the local agent",
		Description: `Every listener prints each message of its topics; a message counts as handled once
it is printed. With --exec, listeners share the messages of their topics, and each
runs COMMAND for its own: the body is the command's standard input, its standard
output is the reply, and an exit code other than 0 is an error at the sender, with
what it wrote to standard error. The command knows of the message by
PARLEY_FROM, PARLEY_TOPIC, PARLEY_ID and PARLEY_KIND (push, send, request,
broadcast), and is stopped when nobody waits for it any more.

Without --topic it listens to all of them; "orders.*" means all that begin with
"orders.". Lines show the first 256 bytes of a body; --json has all of it, as
"body", or "body_base64" when it is not text.`,
		CustomHelpTemplate: `
$ parley listen
$ parley listen --topic 'orders.*' --topic alerts --json
$ parley listen --topic time --exec date
$ parley listen --topic shout --exec 'tr a-z A-Z'
$ parley listen --count 1 --json | jq -r .body`,
		Flags: append([]cli.Flag{
			list("topic", "t", "`TOPIC` or pattern to listen to; repeatable"),
			text("exec", "e", "answer with the output of this shell `COMMAND`", ""),
			integer("parallel", "p", "with --exec: run up to `N` commands at a time", 4),
			integer("count", "c", "end after `N` messages; 0: never", 0),
			jsonFlag(),
		}, agentAddressFlags()...),
		Action: p.verb("listen", 0, 0, (*call).listen),
	}
}

// heard is a message in JSON.
type heard struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	ID     string    `json:"id"`
	From   string    `json:"from"`
	Topic  string    `json:"topic"`
	Size   int       `json:"size"`
	Body   *string   `json:"body,omitempty"`
	Base64 *string   `json:"body_base64,omitempty"`
}

// listener is a "parley listen" that runs.
type listener struct {
	*call
	agent   *control.Client
	session string
	command string // to answer with; empty: print only

	mu      sync.Mutex
	running map[uint64]context.CancelCauseFunc
	workers sync.WaitGroup
}

func (c *call) listen() error {
	count, parallel := c.Int("count"), c.Int("parallel")
	if count < 0 || parallel < 1 || parallel > 256 {
		return usage("--count must be at least 0, and --parallel between 1 and 256")
	}
	for _, t := range c.StringSlice("topic") {
		if strings.Contains(strings.TrimSuffix(t, "*"), "*") || strings.HasSuffix(t, "*") && t != "*" && !strings.HasSuffix(t, ".*") {
			return usage("--topic %s matches nothing; a pattern is * or ends with .*, as in orders.*", quote(t))
		}
	}
	a, err := c.agent()
	if err != nil {
		return err
	}
	defer a.Close()
	l := &listener{call: c, agent: a, command: c.String("exec"), running: make(map[uint64]context.CancelCauseFunc)}
	opts := control.ListenOptions{Topics: c.StringSlice("topic"), Answer: l.command != "", Slots: parallel, Limit: count}
	return c.interruptible(func(ctx context.Context) error {
		defer l.workers.Wait()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		for rec, err := range a.Listen(ctx, opts) {
			if err != nil {
				return err
			}
			done, err := l.take(ctx, rec)
			if err != nil || done {
				return err
			}
		}
		return nil
	})
}

// take deals with one record of the stream. done means that it was the last.
func (l *listener) take(ctx context.Context, rec control.Record) (done bool, err error) {
	switch rec.Type {
	case control.RecordAttached:
		l.session = rec.Session
		topics := "all topics"
		if t := l.StringSlice("topic"); len(t) > 0 {
			topics = strings.Join(t, ", ")
		}
		l.say("listening at %s to %s", rec.Agent, topics)
	case control.RecordLagged:
		l.say("%s missed: this listener was too slow", counted(rec.Lost, "message"))
	case control.RecordCancel:
		l.mu.Lock()
		if cancel := l.running[rec.Seq]; cancel != nil {
			cancel(errNobodyWaits)
		}
		l.mu.Unlock()
	case control.RecordEnd:
		return true, nil
	case control.RecordMessage:
		if err := l.print(*rec.Message); err != nil {
			l.answer(ctx, rec.Seq, control.Answer{Err: "the listener could not print it: " + err.Error()})
			return true, err
		}
		if l.command == "" {
			l.answer(ctx, rec.Seq, control.Answer{})
			return false, nil
		}
		one, cancel := context.WithCancelCause(ctx)
		l.mu.Lock()
		l.running[rec.Seq] = cancel
		l.mu.Unlock()
		l.workers.Go(func() { // at most --parallel, as the agent was told; ends with ctx
			defer cancel(nil)
			a := l.run(one, *rec.Message)
			l.mu.Lock()
			delete(l.running, rec.Seq)
			l.mu.Unlock()
			l.answer(ctx, rec.Seq, a)
		})
	}
	return false, nil
}

func (l *listener) print(m control.Message) error {
	if !l.Bool("json") {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err := l.Stdout.Write([]byte(agent.Line(m) + "\n"))
		return err
	}
	h := heard{Time: m.Time, Kind: m.Kind, ID: m.ID, From: m.From, Topic: m.Topic, Size: len(m.Body)}
	if utf8.Valid(m.Body) {
		s := string(m.Body)
		h.Body = &s
	} else {
		s := base64.StdEncoding.EncodeToString(m.Body)
		h.Base64 = &s
	}
	return l.line(h)
}

// answer tells the agent. When that fails the agent is gone, as the stream tells
// too, or the message is nobody's any more.
func (l *listener) answer(ctx context.Context, seq uint64, a control.Answer) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := l.agent.Answer(ctx, l.session, seq, a); err != nil && ctx.Err() == nil {
		l.say("the answer did not reach the agent: %s", sentence(err.Error()))
	}
}
