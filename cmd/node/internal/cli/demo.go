package cli

import (
	"context"
	"log/slog"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/cmd/node/internal/demo"
	"github.com/urfave/cli/v2"
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Category: "Nodes",
		Usage: "see three nodes at work on this machine, in a few seconds",
		Description: `Three real nodes in this one process, on free ports of the loopback interface: they
find each other, send, request and broadcast, one is killed, and the rest say
goodbye. The exit code is 1 if any of it did not work.`,
		CustomHelpTemplate: "\n$ parley demo\n$ parley demo --verbose",
		Flags:              append(configFlags(), boolean("verbose", "", "show the nodes' logs too")),
		Action: p.verb("demo", 0, 0, func(c *call) error {
			log := slog.New(slog.DiscardHandler)
			if c.Bool("verbose") {
				log = slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
			return c.interruptible(func(ctx context.Context) error {
				err := demo.Run(ctx, demo.Options{Out: c.Stdout, Color: c.colours(c.Stdout), Logger: log})
				switch {
				case err != nil && ctx.Err() != nil:
					return control.NewFault(control.CodeCanceled, "", "the demo was interrupted; its nodes are gone", err)
				case err != nil:
					return control.NewFault(control.CodeInternal, "", "the demo failed: "+err.Error()+"; \"parley demo --verbose\" shows more", err)
				}
				return nil
			})
		}),
	}
}
