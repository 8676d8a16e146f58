package cli

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// shared are the flags that mean the same for every verb that has them, so they
// are called PARLEY_NAME in the environment and NAME at the top of the
// configuration file. A verb's own flags are PARLEY_VERB_NAME, and in the file
// they are in a table of the verb's name; the agent's own are not, since the
// agent is whom the file is mostly for.
var shared = map[string]bool{
	"config": true, "socket": true, "agent": true, "timeout": true, "json": true,
	"cluster": true, "key": true, "key-file": true, "profile": true, "log-level": true, "log-format": true,
}

// own reports whether a flag belongs to the verb alone.
func own(verb, flag string) bool { return verb != "agent" && !shared[flag] }

// envName is the environment variable of a flag.
func envName(verb, flag string) string {
	s := flag
	if own(verb, flag) {
		s = verb + "_" + flag
	}
	return "PARLEY_" + strings.ToUpper(strings.NewReplacer("-", "_", " ", "_").Replace(s))
}

func text(name, letter, usage, value string) cli.Flag {
	return &cli.StringFlag{Name: name, Aliases: alias(letter), Usage: usage, Value: value}
}

func list(name, letter, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Aliases: alias(letter), Usage: usage}
}

func boolean(name, letter, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Aliases: alias(letter), Usage: usage, DisableDefaultText: true}
}

func integer(name, letter, usage string, value int) cli.Flag {
	return &cli.IntFlag{Name: name, Aliases: alias(letter), Usage: usage, Value: value}
}

func period(name, letter, usage string, value time.Duration) cli.Flag {
	return &cli.DurationFlag{Name: name, Aliases: alias(letter), Usage: usage, Value: value}
}

func alias(letter string) []string {
	if letter == "" {
		return nil
	}
	return []string{letter}
}

// Sets of flags that several verbs have.

func configFlags() []cli.Flag {
	return []cli.Flag{text("config", "", "TOML `FILE` with values for flags; its keys are the flags' names", "")}
}

func agentAddressFlags() []cli.Flag {
	return append(configFlags(),
		text("agent", "a", "`NAME` of the local agent to use, when several run here", ""),
		text("socket", "s", "control socket of the local agent, a `PATH`", ""),
	)
}

func timeoutFlag() cli.Flag {
	return period("timeout", "T", "give up after this `TIME`", 5*time.Second)
}

func jsonFlag() cli.Flag { return boolean("json", "j", "write JSON, one object a line") }

func topicFlag() cli.Flag { return text("topic", "t", "`TOPIC` of the message", "default") }

// gossipFlags are those that all nodes of a cluster must have alike.
func gossipFlags() []cli.Flag {
	return []cli.Flag{
		text("cluster", "", "`NAME` of the cluster, the same on all nodes; nodes of other clusters are ignored (default: none)", ""),
		text("key-file", "k", "`FILE` with the gossip key in base64, as \"parley keygen\" makes it", ""),
		text("key", "", "the gossip `KEY` itself; others can see it in the process list, so better use --key-file or PARLEY_KEY", ""),
		text("profile", "", "timing of the gossip: lan, wan or local; the same on all nodes (`NAME`)", "lan"),
	}
}

// joinFlags are those of verbs that work without a local agent.
func joinFlags() []cli.Flag {
	return append([]cli.Flag{
		list("join", "", "without a local agent: join at `HOST:PORT` for this one call; repeatable"),
		boolean("verbose", "", "with --join: show the log of that short-lived node"),
	}, gossipFlags()...)
}

func mailFlags(extra ...cli.Flag) []cli.Flag {
	flags := append(extra, timeoutFlag())
	flags = append(flags, agentAddressFlags()...)
	return append(flags, joinFlags()...)
}

func bodyFlags() []cli.Flag {
	return []cli.Flag{
		topicFlag(),
		text("file", "f", "read the body from `FILE`", ""),
	}
}

func waitFlag() cli.Flag {
	return boolean("wait", "w", "if the node is not there, wait for it to join, within --timeout")
}

// finish gives a verb what all have: --help, the names of the environment
// variables in its help, and its help in our order.
func finish(c *cli.Command, verb string) {
	c.HideHelp, c.HideHelpCommand = true, true
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		return usage("%s", strings.NewReplacer(" for flag -", " for --", " for -", " for --", ": parse error", "").Replace(err.Error()))
	}
	c.CustomHelpTemplate = helpTemplate(c.CustomHelpTemplate)
	for _, f := range c.Flags {
		note := " [$" + envName(verb, f.Names()[0]) + "]"
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Usage += note
		case *cli.StringSliceFlag:
			f.Usage += note
		case *cli.BoolFlag:
			f.Usage += note
		case *cli.IntFlag:
			f.Usage += note
		case *cli.DurationFlag:
			f.Usage += note
		}
	}
	c.Flags = append(c.Flags, &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show this help", DisableDefaultText: true})
	for _, sub := range c.Subcommands {
		sub.HelpName = "parley " + verb + " " + sub.Name
		finish(sub, verb)
	}
}
