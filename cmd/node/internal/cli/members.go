package cli

import (
	"context"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) membersCommand() *cli.Command {
	return &cli.Command{
		Name: "members", Category: "Cluster",
		Usage: "list the nodes of the cluster",
		Description: `A node is alive, left (it said goodbye) or failed (it did not). With several
filters a node must match all of them; a repeated --status means either.`,
		CustomHelpTemplate: `
$ parley members
$ parley members --status alive --tag role=web
$ parley members --name 'web-*'
$ parley members --name '/^web-[0-9]+$/'
$ parley members --json | jq -r .name
$ parley members --join 10.0.0.5:7946`,
		Flags: mailFlags(
			text("name", "n", "only names that match the glob `PATTERN`, or between slashes the regular expression", ""),
			list("status", "", "only with this `STATUS`: alive, left or failed; repeatable"),
			list("tag", "", "only with this tag, `KEY` or KEY=VALUE (a glob); repeatable"),
			jsonFlag()),
		Action: p.verb("members", 0, 0, (*call).members),
	}
}

func (c *call) members() error {
	keep, err := memberFilter(c.String("name"), c.StringSlice("status"), c.StringSlice("tag"))
	if err != nil {
		return err
	}
	return c.timed(func(ctx context.Context) error {
		return c.mail(ctx, func(ctx context.Context, m control.Mail) error {
			all, err := m.Members(ctx)
			if err != nil {
				return err
			}
			return c.printMembers(slices.DeleteFunc(all, func(m control.Member) bool { return !keep(m) }))
		})
	})
}

func (c *call) printMembers(members []control.Member) error {
	if c.Bool("json") {
		for _, m := range members {
			if err := c.line(m); err != nil {
				return err
			}
		}
		return nil
	}
	rows := [][]cell{{{"NAME", faint}, {"ADDRESS", faint}, {"STATUS", faint}, {"SINCE", faint}, {"TAGS", faint}}}
	for _, m := range members {
		since := age(m.Since)
		if len(c.StringSlice("join")) > 0 {
			since = "-" // a node that came a moment ago has not seen it
		}
		rows = append(rows, []cell{
			{m.Name, bold}, {m.Addr, plain}, {m.Status, statusColour(m.Status)},
			{since, plain}, {tagText(m.Tags), plain},
		})
	}
	c.table(rows)
	return nil
}

func statusColour(status string) string {
	switch status {
	case "alive", "joined":
		return green
	case "left":
		return yellow
	case "failed":
		return red
	}
	return plain
}

func age(since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return time.Since(since).Round(time.Second).String()
}

// tagText writes tags in the order of their keys.
func tagText(tags map[string]string) string {
	if len(tags) == 0 {
		return "-"
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, k+"="+sentence(tags[k]))
	}
	return strings.Join(out, ",")
}

// memberFilter makes a filter of the flags' values.
func memberFilter(name string, status, tags []string) (func(control.Member) bool, error) {
	matchName, err := nameFilter(name)
	if err != nil {
		return nil, err
	}
	for _, s := range status {
		if s != "alive" && s != "left" && s != "failed" {
			return nil, usage("--status is %s; it can be alive, left or failed", quote(s))
		}
	}
	for _, t := range tags {
		if _, pattern, _ := strings.Cut(t, "="); !validGlob(pattern) {
			return nil, usage("--tag %s is not a good pattern", quote(t))
		}
	}
	return func(m control.Member) bool {
		if !matchName(m.Name) || len(status) > 0 && !slices.Contains(status, m.Status) {
			return false
		}
		for _, t := range tags {
			key, pattern, valued := strings.Cut(t, "=")
			value, ok := m.Tags[key]
			if !ok {
				return false
			}
			if match, _ := path.Match(pattern, value); valued && !match && pattern != value {
				return false
			}
		}
		return true
	}, nil
}

func nameFilter(pattern string) (func(string) bool, error) {
	if pattern == "" {
		return func(string) bool { return true }, nil
	}
	if len(pattern) > 1 && pattern[0] == '/' && pattern[len(pattern)-1] == '/' {
		re, err := regexp.Compile(pattern[1 : len(pattern)-1])
		if err != nil {
			return nil, usage("--name %s: %v", quote(pattern), err)
		}
		return re.MatchString, nil
	}
	if !validGlob(pattern) {
		return nil, usage("--name %s is not a good pattern", quote(pattern))
	}
	return func(name string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	}, nil
}

func validGlob(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}
