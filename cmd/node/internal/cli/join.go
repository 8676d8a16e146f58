package cli

import (
	"context"

	"github.com/urfave/cli/v2"
)

func (p *program) joinCommand() *cli.Command {
	return &cli.Command{
		Name: "join", Category: "Cluster", ArgsUsage: "HOST[:PORT]...",
		Usage: "make the local agent join the cluster of another node",
		Description: `One node of the other cluster is enough: the two clusters become one. The port is
7946 unless it is given; a name with several addresses stands for all of them.`,
		CustomHelpTemplate: `
$ parley join 10.0.0.5:7946
$ parley join 10.0.0.5 10.0.0.6`,
		Flags:  append(agentAddressFlags(), timeoutFlag(), jsonFlag()),
		Action: p.verb("join", 1, -1, (*call).join),
	}
}

func (c *call) join() error {
	seeds := c.Args().Slice()
	return c.timed(func(ctx context.Context) error {
		a, err := c.agent()
		if err != nil {
			return err
		}
		defer a.Close()
		n, err := a.Join(ctx, seeds)
		if err != nil {
			return err
		}
		members, err := a.Members(ctx)
		if err != nil {
			return err
		}
		alive := 0
		for _, m := range members {
			if m.Status == "alive" {
				alive++
			}
		}
		if c.Bool("json") {
			return c.line(struct {
				Answered int `json:"answered"`
				Alive    int `json:"alive"`
			}{n, alive})
		}
		c.say("joined: %s answered, %s alive", counted(n, "address"), counted(alive, "node"))
		return nil
	})
}
