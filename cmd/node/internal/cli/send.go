package cli

import (
	"context"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/urfave/cli/v2"
)

func (p *program) sendCommand() *cli.Command {
	return &cli.Command{
		Name: "send", Category: "Messages", ArgsUsage: "NODE [BODY]",
		Usage: "send a message to a node and wait until it is handled there",
		Description: `The exit code is 0 when the other node has handled the message: a listener there
took it, or the agent printed it. Every error says what became of the message:
NOT DELIVERED means that nobody saw it and nobody will, UNKNOWN that it may or
may not have been handled, HANDLER FAILED that it was handled and that failed.

BODY may also come with --file or on standard input; "-" names standard input. A
body that begins with "-" goes after "--".`,
		CustomHelpTemplate: `
$ parley send node2 "hello"
$ parley send node2 --topic backup.done --file report.json
$ date | parley send node2
$ parley send node2 --wait --timeout 1m "when you are up"
$ parley send --join 10.0.0.5:7946 node2 "from a machine without an agent"`,
		Flags:        mailFlags(append(bodyFlags(), waitFlag(), jsonFlag())...),
		BashComplete: p.completeNodes,
		Action:       p.verb("send", 1, 2, (*call).send),
	}
}

// target is whom the message is for.
func (c *call) target() (control.Target, error) {
	to := control.Target{Node: c.Args().First(), Topic: c.String("topic"), Wait: c.Bool("wait")}
	if err := codec.ValidName(to.Node); err != nil {
		return to, usage("%s cannot be the name of a node: %v; \"parley members\" lists the nodes", quote(to.Node), err)
	}
	if err := codec.ValidTopic(to.Topic); err != nil {
		return to, usage("--topic: %v", err)
	}
	return to, nil
}

func (c *call) send() error {
	to, err := c.target()
	if err != nil {
		return err
	}
	body, err := c.body(1)
	if err != nil {
		return err
	}
	return c.timed(func(ctx context.Context) error {
		return c.mail(ctx, func(ctx context.Context, m control.Mail) error {
			start := time.Now()
			if err := m.Send(ctx, to, body); err != nil {
				return err
			}
			took := time.Since(start)
			if c.Bool("json") {
				return c.line(sent{Node: to.Node, Topic: to.Topic, Bytes: len(body), Outcome: "handled", Millis: millis(took)})
			}
			c.say("handled by %s in %s", to.Node, short(took))
			return nil
		})
	})
}

// sent is what send and push say in JSON.
type sent struct {
	Node    string  `json:"node"`
	Topic   string  `json:"topic"`
	Bytes   int     `json:"bytes"`
	Outcome string  `json:"outcome"` // handled, or queued
	Millis  float64 `json:"time_ms"`
}
