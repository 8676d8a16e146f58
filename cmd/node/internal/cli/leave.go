package cli

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"
)

func (p *program) leaveCommand() *cli.Command {
	return &cli.Command{
		Name: "leave", Category: "Cluster",
		Usage: "make the local agent leave the cluster and end",
		Description: `The agent says goodbye, so the others see it as left and not as failed, answers
what it has taken, and ends with exit code 0.`,
		CustomHelpTemplate: `
$ parley leave
$ parley leave --agent node2`,
		Flags: append(agentAddressFlags(),
			period("timeout", "T", "give up after this `TIME`", 10*time.Second)),
		Action: p.verb("leave", 0, 0, func(c *call) error {
			return c.timed(func(ctx context.Context) error {
				a, err := c.agent()
				if err != nil {
					return err
				}
				defer a.Close()
				if err := a.Leave(ctx); err != nil {
					return err
				}
				// Who starts the agent again at once shall find its socket free.
				if err := a.WaitGone(ctx); err != nil {
					return err
				}
				c.say("left")
				return nil
			})
		}),
	}
}
