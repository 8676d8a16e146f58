package cli

import (
	"context"
	"maps"
	"slices"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) infoCommand() *cli.Command {
	return &cli.Command{
		Name: "info", Category: "Cluster",
		Usage:       "show the local agent: name, addresses, limits, counters",
		Description: `With --json, one object with everything, the counters of all parts included.`,
		CustomHelpTemplate: `
$ parley info
$ parley info --json | jq .stats.unicast`,
		Flags:  append(agentAddressFlags(), timeoutFlag(), jsonFlag()),
		Action: p.verb("info", 0, 0, (*call).info),
	}
}

func (c *call) info() error {
	return c.timed(func(ctx context.Context) error {
		a, err := c.agent()
		if err != nil {
			return err
		}
		defer a.Close()
		info, err := a.Info(ctx)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return c.line(info)
		}
		members, err := a.Members(ctx)
		if err != nil {
			return err
		}
		c.table(infoRows(info, members))
		return nil
	})
}

func infoRows(info control.Info, members []control.Member) [][]cell {
	count := map[string]int{}
	for _, m := range members {
		count[m.Status]++
	}
	encrypted := "no"
	if info.Encrypted {
		encrypted = "yes"
	}
	rows := [][]cell{
		{{"name", faint}, {info.Name, bold}},
		{{"gossip", faint}, {info.Addr, plain}},
	}
	if info.Cluster != "" {
		rows = append(rows, []cell{{"cluster", faint}, {info.Cluster, plain}})
	}
	for _, s := range slices.Sorted(maps.Keys(info.Services)) {
		rows = append(rows, []cell{{s, faint}, {info.Services[s], plain}})
	}
	for _, kv := range [][2]string{
		{"members", sprintf("%d alive, %d left, %d failed", count["alive"], count["left"], count["failed"])},
		{"tags", tagText(info.Tags)},
		{"encrypted", encrypted},
		{"profile", info.Profile},
		{"listeners", sprintf("%d", info.Listeners)},
		{"limits", sprintf("message %d bytes, best-effort broadcast %d bytes", info.Limits.Message, info.Limits.Gossip)},
		{"instance", info.Instance},
		{"socket", info.Socket},
		{"pid", sprintf("%d", info.PID)},
		{"up", age(info.Started)},
		{"version", info.Version},
	} {
		rows = append(rows, []cell{{kv[0], faint}, {kv[1], plain}})
	}
	return rows
}
