package cli

import (
	"regexp"
	"slices"
	"strings"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/cmd/node/internal/nearest"
	"github.com/urfave/cli/v2"
)

// completionFlag is what completion scripts call the program with, at the end.
const completionFlag = "--generate-bash-completion"

var number = regexp.MustCompile(`^-[0-9.]`)

// arrange brings the arguments into the order that the parser needs: the verb,
// its flags, "--", and the rest. People write them in any order. It also says
// what is wrong in words that help, since it knows what was probably meant.
//
// An argument that begins with "-" is a flag, unless it is "-" alone, looks like
// a negative number, is the value of a flag, or comes after "--".
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	if args[len(args)-1] == completionFlag {
		return forCompletion(args), nil
	}
	var verb *cli.Command
	words, early, err := scan(args[1:], flagsOf(app.Commands...), func(word string) bool {
		verb = find(app.Commands, word)
		return true
	})
	switch {
	case err == errHelp && verb == nil:
		return []string{args[0], "help"}, nil
	case err == errVersion:
		return []string{args[0], "version"}, nil
	case verb == nil && err != nil && len(words) == 0:
		return nil, err
	case len(words) == 0 && len(early) > 0:
		return nil, usage("which verb? \"parley help\" lists them")
	case len(words) == 0:
		return []string{args[0], "help"}, nil
	case verb == nil:
		return nil, usage("there is no verb %s%s", quote(words[0]), nearest.Hint(words[0], names(app.Commands), "\"parley help\" lists them"))
	}
	// Now that the verb is known, so are its flags.
	out := []string{args[0], verb.Name}
	words, flags, err := scan(args[1:], flagsOf(verb), nil)
	if err == nil || err == errHelp {
		words = words[1:]
		if len(words) > 0 && len(verb.Subcommands) > 0 {
			if sub := find(verb.Subcommands, words[0]); sub != nil {
				out, words = append(out, sub.Name), words[1:]
				verb = sub
			} else if verb.ArgsUsage == "" {
				return nil, usage("there is no \"parley %s %s\"%s", verb.Name, words[0],
					nearest.Hint(words[0], names(verb.Subcommands), "\"parley help "+verb.Name+"\" lists what there is"))
			}
		}
	}
	if err == errHelp {
		return append([]string{args[0], "help"}, out[1:]...), nil
	}
	if err != nil {
		return nil, err
	}
	out = append(out, flags...)
	return append(append(out, "--"), words...), nil
}

// forCompletion makes sure that a question of a completion script never runs a
// verb: the parser takes the question for an argument when a "--" stands before
// it. A "--" that is being written is the beginning of a flag; what comes after
// a finished one is not ours to complete. nil means to say nothing.
func forCompletion(args []string) []string {
	i := slices.Index(args, "--")
	switch {
	case i < 0:
		return args
	case i == len(args)-2:
		return append(append(slices.Clone(args[:i]), "-"), completionFlag)
	}
	return nil
}

type scanEnd string

func (e scanEnd) Error() string { return string(e) }

const (
	errHelp    scanEnd = "help wanted"
	errVersion scanEnd = "version wanted"
)

// scan parts args into words and flags with their values. onWord, if there is
// one, is called with the first word and says whether to stop there.
func scan(args []string, known map[string]cli.Flag, onWord func(string) bool) (words, flags []string, err error) {
	help := false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			words = append(words, args[i+1:]...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") || number.MatchString(arg) && known[strings.TrimLeft(arg, "-")] == nil {
			words = append(words, arg)
			if onWord != nil && onWord(arg) {
				break
			}
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		f := known[name]
		if f == nil && len(name) > 1 && name[1] >= '0' && name[1] <= '9' && takesValue(known[name[:1]]) && !hasValue {
			// -c3 is -c 3
			f, name, value, hasValue = known[name[:1]], name[:1], name[1:], true
		}
		switch {
		case name == "help" || name == "h":
			help = true
			continue
		case f == nil && onWord != nil && (name == "version" || name == "v"):
			return words, flags, errVersion
		case f == nil:
			return words, flags, usage("there is no flag %s%s", quote(arg),
				nearest.Hint("--"+name, longNames(known), "what begins with \"-\" and is no flag goes after \"--\""))
		case hasValue:
			flags = append(flags, "--"+f.Names()[0]+"="+value)
		case !takesValue(f):
			flags = append(flags, "--"+f.Names()[0])
		case i+1 == len(args):
			return words, flags, usage("the flag --%s needs a value", f.Names()[0])
		default:
			i++
			flags = append(flags, "--"+f.Names()[0]+"="+args[i])
		}
	}
	if help {
		err = errHelp
	}
	return words, flags, err
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// flagsOf maps all names of the flags of verbs and of their subcommands.
func flagsOf(verbs ...*cli.Command) map[string]cli.Flag {
	known := make(map[string]cli.Flag)
	for _, v := range verbs {
		for _, f := range v.Flags {
			for _, name := range f.Names() {
				if known[name] == nil || takesValue(f) {
					known[name] = f
				}
			}
		}
		for name, f := range flagsOf(v.Subcommands...) {
			known[name] = f
		}
	}
	return known
}

func find(commands []*cli.Command, word string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
	if i < 0 {
		return nil
	}
	return commands[i]
}

func names(commands []*cli.Command) []string {
	var all []string
	for _, c := range commands {
		all = append(all, c.Name)
	}
	return all
}

// longNames are the names of flags that have more than one letter.
func longNames(known map[string]cli.Flag) []string {
	var all []string
	for name := range known {
		if len(name) > 1 {
			all = append(all, "--"+name)
		}
	}
	slices.Sort(all)
	return all
}

func usage(format string, args ...any) *control.Fault {
	return control.NewFault(control.CodeUsage, "", sprintf(format, args...), nil)
}
