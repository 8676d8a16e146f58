package cli

import (
	"context"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) eventsCommand() *cli.Command {
	return &cli.Command{
		Name: "events", Category: "Cluster",
		Usage: "watch nodes join, change, leave and fail",
		Description: `One line for each event from now on, until an interrupt. "lagged" says that events
were missed because nobody read them in time.`,
		CustomHelpTemplate: `
$ parley events
$ parley events --json | jq -r 'select(.type == "failed") | .member.name'`,
		Flags:  append(agentAddressFlags(), integer("count", "c", "end after `N` events; 0: never", 0), jsonFlag()),
		Action: p.verb("events", 0, 0, (*call).events),
	}
}

func (c *call) events() error {
	a, err := c.agent()
	if err != nil {
		return err
	}
	defer a.Close()
	if c.Int("count") < 0 {
		return usage("--count must be at least 0")
	}
	return c.interruptible(func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		n, events := 0, a.Events(ctx)
		c.say("watching the cluster; an interrupt ends it")
		for e, err := range events {
			if err != nil {
				return err
			}
			if err := c.printEvent(e); err != nil {
				return err
			}
			if n++; n == c.Int("count") {
				break
			}
		}
		return nil
	})
}

func (c *call) printEvent(e control.Event) error {
	if c.Bool("json") {
		return c.line(e)
	}
	at := cell{e.Time.Format("2006-01-02T15:04:05.000Z07:00"), faint}
	if e.Member == nil {
		c.table([][]cell{{at, {e.Type, yellow}, {sprintf("%d events were missed", e.Lost), plain}}})
		return nil
	}
	c.table([][]cell{{at, {sprintf("%-7s", e.Type), statusColour(e.Type)}, {e.Member.Name, bold}, {e.Member.Addr, plain}, {tagText(e.Member.Tags), plain}}})
	return nil
}
