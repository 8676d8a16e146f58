package cli

import (
	"context"
	"errors"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) pushCommand() *cli.Command {
	return &cli.Command{
		Name: "push", Category: "Messages", ArgsUsage: "NODE [BODY]...",
		Usage: "push messages to a node, without an acknowledgement",
		Description: `Each BODY is one message. The exit code is 0 when they are queued for the other
node; what becomes of them there nobody reports. Use "parley send" to know.`,
		CustomHelpTemplate: `
$ parley push node2 "temperature 21.5"
$ parley push node2 one two three
$ parley push node2 --topic log --file today.log`,
		Flags:        mailFlags(append(bodyFlags(), waitFlag(), jsonFlag())...),
		BashComplete: p.completeNodes,
		Action:       p.verb("push", 1, -1, (*call).push),
	}
}

func (c *call) push() error {
	to, err := c.target()
	if err != nil {
		return err
	}
	var bodies [][]byte
	for i := 1; i < max(c.NArg(), 2); i++ {
		body, err := c.body(i)
		if err != nil {
			return err
		}
		bodies = append(bodies, body)
	}
	return c.timed(func(ctx context.Context) error {
		return c.mail(ctx, func(ctx context.Context, m control.Mail) error {
			start, bytes := time.Now(), 0
			for i, body := range bodies {
				if err := m.Push(ctx, to, body); err != nil {
					var f *control.Fault
					if i > 0 && errors.As(err, &f) {
						return control.NewFault(control.CodePartial, f.Outcome, sprintf("pushed %d of %d: %s", i, len(bodies), f.Message), err)
					}
					return err
				}
				bytes += len(body)
				if c.Bool("json") {
					if err := c.line(sent{Node: to.Node, Topic: to.Topic, Bytes: len(body), Outcome: "queued", Millis: millis(time.Since(start))}); err != nil {
						return err
					}
				}
			}
			if !c.Bool("json") {
				c.say("pushed %s, %s, to %s; not acknowledged", counted(len(bodies), "message"), counted(bytes, "byte"), to.Node)
			}
			return nil
		})
	})
}
