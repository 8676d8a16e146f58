package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) tagsCommand() *cli.Command {
	flags := func() []cli.Flag { return append(agentAddressFlags(), timeoutFlag(), jsonFlag()) }
	return &cli.Command{
		Name: "tags", Category: "Cluster",
		Usage: "show, set or delete the tags of the local agent's node",
		Description: `Tags are short texts that all nodes know about each other; "parley members --tag"
finds nodes by them. A change lasts until the agent ends or re-reads its
configuration.`,
		CustomHelpTemplate: `
$ parley tags
$ parley tags set role=web zone=b
$ parley tags delete zone`,
		Flags:  flags(),
		Action: p.verb("tags", 0, 0, func(c *call) error { return c.tags(control.TagChange{}) }),
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "show the tags", Flags: flags(),
				Action: p.verb("tags", 0, 0, func(c *call) error { return c.tags(control.TagChange{}) }),
			},
			{
				Name: "set", Usage: "set tags", ArgsUsage: "KEY=VALUE...", Flags: flags(),
				CustomHelpTemplate: "\n$ parley tags set role=web zone=b",
				Action: p.verb("tags", 1, -1, func(c *call) error {
					set, err := parseTags(c.Args().Slice())
					if err != nil {
						return err
					}
					return c.tags(control.TagChange{Set: set})
				}),
			},
			{
				Name: "delete", Usage: "delete tags", ArgsUsage: "KEY...", Flags: flags(),
				CustomHelpTemplate: "\n$ parley tags delete zone",
				Action: p.verb("tags", 1, -1, func(c *call) error {
					return c.tags(control.TagChange{Delete: c.Args().Slice()})
				}),
			},
		},
	}
}

// parseTags reads KEY=VALUE.
func parseTags(args []string) (map[string]string, error) {
	tags := make(map[string]string, len(args))
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return nil, usage("a tag is written KEY=VALUE, and this is %s", quote(arg))
		}
		tags[key] = value
	}
	return tags, nil
}

func (c *call) tags(change control.TagChange) error {
	return c.timed(func(ctx context.Context) error {
		a, err := c.agent()
		if err != nil {
			return err
		}
		defer a.Close()
		tags, err := a.Tags(ctx, change)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return c.line(tags)
		}
		for _, k := range slices.Sorted(maps.Keys(tags)) {
			if _, err := c.Stdout.Write([]byte(k + "=" + sentence(tags[k]) + "\n")); err != nil {
				return err
			}
		}
		return nil
	})
}
