package cli

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/cmd/node/internal/nearest"
	"github.com/urfave/cli/v2"
)

func (p *program) addrCommand() *cli.Command {
	return &cli.Command{
		Name: "addr", Category: "Cluster", ArgsUsage: "NODE",
		Usage: "show where a node offers its services",
		Description: `One service a line, with the URL of its endpoint. Any program that speaks SP (NNG,
nanomsg, mangos) can connect there.`,
		CustomHelpTemplate: `
$ parley addr node2
$ parley addr node2 --service unicast-rep
$ parley addr node2 --json`,
		Flags:        mailFlags(text("service", "", "print only the URL of this `SERVICE`", ""), jsonFlag()),
		BashComplete: p.completeNodes,
		Action:       p.verb("addr", 1, 1, (*call).addr),
	}
}

func (c *call) addr() error {
	name, service := c.Args().First(), c.String("service")
	return c.timed(func(ctx context.Context) error {
		return c.mail(ctx, func(ctx context.Context, m control.Mail) error {
			member, err := findMember(ctx, m, name)
			if err != nil {
				return err
			}
			if member.Status != "alive" {
				code := control.CodeNodeFailed
				if member.Status == "left" {
					code = control.CodeNodeLeft
				}
				return control.NewFault(code, "", sprintf("%s has no address now: it has %s; \"parley members\" shows since when", name, member.Status), nil)
			}
			if service != "" {
				url, ok := member.Services[service]
				if !ok {
					return control.NewFault(control.CodeNoService, "", sprintf("%s does not offer %s; \"parley addr %s\" shows what it does", name, quote(service), name), nil)
				}
				_, err := c.Stdout.Write([]byte(url + "\n"))
				return err
			}
			var rows [][]cell
			for _, s := range slices.Sorted(maps.Keys(member.Services)) {
				if c.Bool("json") {
					if err := c.line(endpoint{Node: name, Service: s, URL: member.Services[s]}); err != nil {
						return err
					}
				}
				rows = append(rows, []cell{{s, plain}, {member.Services[s], plain}})
			}
			if !c.Bool("json") {
				c.table(rows)
			}
			return nil
		})
	})
}

// endpoint is where a node offers a service, in JSON.
type endpoint struct {
	Node    string `json:"node"`
	Service string `json:"service"`
	URL     string `json:"url"`
}

// findMember is the node of that name.
func findMember(ctx context.Context, m control.Mail, name string) (control.Member, error) {
	all, err := m.Members(ctx)
	if err != nil {
		return control.Member{}, err
	}
	var names []string
	for _, member := range all {
		if member.Name == name {
			return member, nil
		}
		names = append(names, member.Name)
	}
	return control.Member{}, control.NewFault(control.CodeUnknownNode, "", sprintf("no node called %s is known here%s",
		quote(name), nearest.Hint(name, names, "\"parley members\" lists the nodes")), errors.New("unknown node"))
}
