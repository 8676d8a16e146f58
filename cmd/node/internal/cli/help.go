package cli

import (
	"github.com/parley-mesh/parley/cmd/node/internal/nearest"
	"github.com/urfave/cli/v2"
)

func (p *program) helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", Aliases: []string{"h"}, Category: "Program", ArgsUsage: "[VERB]",
		Usage:              "show this list, or more about one verb",
		CustomHelpTemplate: "\n$ parley help send",
		BashComplete: func(*cli.Context) {
			for _, name := range names(p.app.Commands) {
				p.write(name + "\n")
			}
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				cli.HelpPrinter(p.Stdout, appTemplate, p.app)
				return nil
			}
			commands := p.app.Commands
			var found *cli.Command
			for _, word := range c.Args().Slice() {
				if found = find(commands, word); found == nil {
					return usage("there is no verb %s%s", quote(word), nearest.Hint(word, names(commands), "\"parley help\" lists them"))
				}
				commands = found.Subcommands
			}
			cli.HelpPrinter(p.Stdout, found.CustomHelpTemplate, found)
			return nil
		},
	}
}

func (p *program) write(s string) { _, _ = p.Stdout.Write([]byte(s)) }
