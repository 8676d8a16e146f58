package cli

import (
	"context"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) requestCommand() *cli.Command {
	return &cli.Command{
		Name: "request", Category: "Messages", ArgsUsage: "NODE [BODY]",
		Usage: "send a message to a node and print its reply",
		Description: `Standard output gets the bytes of the reply and nothing else. Somebody must
answer on the other node: "parley listen --exec COMMAND" beside its agent, or a
program that embeds Parley. Otherwise the exit code is 7, at once.`,
		CustomHelpTemplate: `
$ parley request node2 "what time is it?"
$ parley request node2 --topic thumbnail --file cat.jpg > cat-small.jpg
$ parley request --join 10.0.0.5:7946 node2 status`,
		Flags:        mailFlags(append(bodyFlags(), waitFlag())...),
		BashComplete: p.completeNodes,
		Action:       p.verb("request", 1, 2, (*call).request),
	}
}

func (c *call) request() error {
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
			reply, err := m.Request(ctx, to, body)
			if err != nil {
				return err
			}
			_, err = c.Stdout.Write(reply)
			return err
		})
	})
}
