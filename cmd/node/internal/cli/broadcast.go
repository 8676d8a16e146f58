package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/urfave/cli/v2"
)

func (p *program) broadcastCommand() *cli.Command {
	return &cli.Command{
		Name: "broadcast", Category: "Messages", ArgsUsage: "[BODY]",
		Usage: "send a message to all nodes",
		Description: `Without --reliable it goes by gossip: at most 1 KiB, soon, to everybody, probably,
and no more often than gossip can carry. With --reliable it goes to every node
that is alive, up to 1 MiB, and the output names who has handled it and who has
not, and why; then the exit code is 6.`,
		CustomHelpTemplate: `
$ parley broadcast "tea is ready"
$ parley broadcast --reliable --topic config.new --file config.json
$ parley broadcast --reliable --json "are you there?"`,
		Flags:  mailFlags(append(bodyFlags(), boolean("reliable", "r", "to every live node, acknowledged by each"), jsonFlag())...),
		Action: p.verb("broadcast", 0, 1, (*call).broadcast),
	}
}

// receiptLine is what became of a broadcast at one node, in JSON.
type receiptLine struct {
	Node    string `json:"node"`
	Outcome string `json:"outcome"` // handled, written, NOT DELIVERED, UNKNOWN or HANDLER FAILED
	Error   string `json:"error,omitempty"`
}

func (c *call) broadcast() error {
	body, err := c.body(0)
	if err != nil {
		return err
	}
	topic, reliable := c.String("topic"), c.Bool("reliable")
	if err := codec.ValidTopic(topic); err != nil {
		return usage("--topic: %v", err)
	}
	return c.timed(func(ctx context.Context) error {
		return c.mail(ctx, func(ctx context.Context, m control.Mail) error {
			start := time.Now()
			r, err := m.Broadcast(ctx, topic, reliable, body)
			if err != nil {
				return err
			}
			if !reliable {
				if c.Bool("json") {
					return c.line(r)
				}
				c.say("gossiped; %s should hear it", counted(r.Members, "other node"))
				return nil
			}
			return c.receipt(r, time.Since(start))
		})
	})
}

// receipt prints what became of a reliable broadcast, node by node.
func (c *call) receipt(r control.Receipt, took time.Duration) error {
	var lines []receiptLine
	for _, n := range r.Handled {
		lines = append(lines, receiptLine{Node: n, Outcome: "handled"})
	}
	for _, n := range r.Written {
		lines = append(lines, receiptLine{Node: n, Outcome: "written"})
	}
	for _, n := range slices.Sorted(maps.Keys(r.Failed)) {
		lines = append(lines, receiptLine{Node: n, Outcome: r.Failed[n].Outcome, Error: r.Failed[n].Error})
	}
	slices.SortStableFunc(lines, func(a, b receiptLine) int { return strings.Compare(a.Node, b.Node) })
	var rows [][]cell
	for _, l := range lines {
		if c.Bool("json") {
			if err := c.line(l); err != nil {
				return err
			}
			continue
		}
		colour := green
		if l.Error != "" {
			colour = red
		}
		rows = append(rows, []cell{{l.Node, bold}, {l.Outcome, colour}, {sentence(l.Error), plain}})
	}
	c.table(rows)
	if len(r.Failed) > 0 {
		return control.NewFault(control.CodePartial, "", sprintf(
			"broadcast failed for %d of %s; the lines above say why, \"parley send\" reaches one of them alone",
			len(r.Failed), counted(r.Members, "node")), nil)
	}
	if !c.Bool("json") {
		c.say("%s in %s", counted(r.Members, "other node"), short(took))
	}
	return nil
}
