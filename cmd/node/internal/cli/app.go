// Package cli is the command line of Parley: its verbs, flags and configuration,
// what they print, and the exit codes. [Run] is the program.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// Streams of the program. Data goes to Stdout, everything else to Stderr.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// program is one run of the command line.
type program struct {
	Streams
	app  *cli.App
	env  func(string) (string, bool)
	exit func(int) // ends the process at once
}

// Run runs the program and returns its exit code. It ends early when ctx does,
// as it would on an interrupt.
func Run(ctx context.Context, args []string, std Streams) int {
	p := &program{Streams: std, env: os.LookupEnv, exit: os.Exit}
	p.app = p.build()
	args, err := arrange(p.app, args)
	if err == nil && args != nil {
		err = p.app.RunContext(ctx, args)
	}
	return p.report(err)
}

func (p *program) build() *cli.App {
	app := &cli.App{
		Name:                      "parley",
		HelpName:                  "parley",
		Usage:                     "a gossip cluster whose nodes send messages to each other by name",
		UsageText:                 "parley VERB [flags] [arguments]",
		Description:               appDescription,
		CustomAppHelpTemplate:     appTemplate,
		HideHelp:                  true,
		HideHelpCommand:           true,
		HideVersion:               true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		Reader:                    p.Stdin,
		Writer:                    p.Stdout,
		ErrWriter:                 p.Stderr,
		ExitErrHandler:            func(*cli.Context, error) {},
		Commands: []*cli.Command{
			p.agentCommand(), p.demoCommand(),
			p.sendCommand(), p.requestCommand(), p.pushCommand(), p.broadcastCommand(), p.listenCommand(), p.pingCommand(),
			p.membersCommand(), p.addrCommand(), p.eventsCommand(), p.infoCommand(), p.tagsCommand(), p.joinCommand(), p.leaveCommand(),
			p.keygenCommand(), p.versionCommand(), p.completionCommand(), p.helpCommand(),
		},
	}
	for _, c := range app.Commands {
		finish(c, c.Name)
	}
	return app
}

// call is one use of a verb.
type call struct {
	*cli.Context
	*program
	from map[string]source // of the flags' values
}

// verb makes the Action of a command out of what it does.
func (p *program) verb(name string, least, most int, do func(*call) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		from, err := p.resolve(c, name)
		if err != nil {
			return err
		}
		help := strings.TrimPrefix(c.Command.HelpName, "parley ")
		switch n := c.NArg(); {
		case n < least:
			return usage("%s needs %s; \"parley help %s\" shows how", help, argsWanted(c.Command), help)
		case most >= 0 && n > most:
			hint := ""
			if strings.Contains(c.Command.ArgsUsage, "BODY") {
				hint = "; a body of several words goes in quotes"
			}
			return usage("%s takes %s, and %s is too much%s", help, argsWanted(c.Command), quote(c.Args().Get(most)), hint)
		}
		return do(&call{Context: c, program: p, from: from})
	}
}

func argsWanted(c *cli.Command) string {
	if c.ArgsUsage == "" {
		return "no arguments"
	}
	return c.ArgsUsage
}

// say writes a line for people.
func (p *program) say(format string, args ...any) { fmt.Fprintf(p.Stderr, format+"\n", args...) }

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// quote makes what somebody typed, or sent, safe to print.
func quote(s string) string { return strconv.Quote(s) }

const appDescription = `Nodes find each other by gossip and talk to each other directly: there is no
broker and nothing to install beside this program.

   $ parley demo                                  see it work
   $ parley agent -n node1                        a node
   $ parley agent -n node2 --join 127.0.0.1:7946  another one, in another terminal
   $ parley send -a node1 node2 "hello"           a message from the one to the other

"parley agent" is a node. Every other verb talks to the local agent over its
control socket, or, with --join, joins for the one call.`

// appTemplate is the help of the whole program.
const appTemplate = `{{.Name}} - {{.Usage}}

USAGE:
   {{.UsageText}}

{{.Description}}

VERBS:{{range .VisibleCategories}}{{if .Name}}

   {{.Name}}{{end}}{{range .VisibleCommands}}
      {{.Name}}{{"\t"}}{{.Usage}}{{end}}{{end}}

"parley help VERB" tells more about one, with examples.

EXIT CODES:
   0  done                                  5  timeout, or no reply
   1  wrong usage, or an internal error     6  some of many failed
   2  no agent, or it does not answer       7  the other node's handler failed, or no listener
   3  unknown node                          8  refused: another key, another node, or a limit
   4  the node has left or has failed       9  too large

CONFIGURATION:
   A flag on the command line beats an environment variable, that beats the
   configuration file (--config FILE, TOML), and that the default. Variables are
   in the help of each verb. Keys of the file are the names of flags:

      name = "node1"
      bind = "10.0.0.4:7946"
      join = ["10.0.0.5:7946", "10.0.0.6:7946"]
      tag = ["role=web"]
      [ping]
      count = 5

   NO_COLOR is heard. Data goes to standard output, everything else to standard error.
`

// helpTemplate is the help of a verb with examples.
func helpTemplate(examples string) string {
	s := `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} [flags]{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{if .Description}}
{{.Description}}
{{end}}{{if .VisibleCommands}}
VERBS:{{range .VisibleCommands}}
   {{.Name}}{{"\t"}}{{.Usage}}{{end}}
{{end}}
FLAGS:{{range .VisibleFlags}}
   {{.}}{{end}}
`
	if examples != "" {
		s += "\nEXAMPLES:\n"
		for line := range strings.Lines(strings.TrimSpace(examples)) {
			s += "   " + line
		}
		s += "\n"
	}
	return s
}
