package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/parley-mesh/parley/cmd/node/internal/nearest"
	"github.com/urfave/cli/v2"
)

// source is where the value of a flag came from; the greater beats the lesser.
type source int

const (
	fromDefault source = iota
	fromFile
	fromEnv
	fromFlag
)

// resolve gives the flags of a verb that were not on the command line their
// values from the environment or the configuration file, and says where each
// came from. An environment variable that is empty counts as not set.
func (p *program) resolve(c *cli.Context, verb string) (map[string]source, error) {
	from := make(map[string]source)
	var rest []string
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		switch value, ok := p.env(envName(verb, name)); {
		case name == "help":
		case c.IsSet(name):
			from[name] = fromFlag
		case ok && value != "":
			values := []string{value}
			if _, many := f.(*cli.StringSliceFlag); many {
				values = splitList(value)
			}
			if err := setFlag(c, name, values); err != nil {
				return nil, usage("%s=%s: %v", envName(verb, name), quote(value), err)
			}
			from[name] = fromEnv
		default:
			rest = append(rest, name)
		}
	}
	path := c.String("config")
	if path == "" {
		return from, nil
	}
	file, err := readConfig(path, p.app)
	if err != nil {
		return nil, err
	}
	for _, name := range rest {
		values, ok := file.values(verb, name)
		if !ok {
			continue
		}
		if len(values) > 1 && !isList(c.Command.Flags, name) {
			return nil, usage("configuration file %s: %s takes one value, not a list of %d", path, name, len(values))
		}
		if err := setFlag(c, name, values); err != nil {
			return nil, usage("configuration file %s: %s: %v", path, name, err)
		}
		from[name] = fromFile
	}
	return from, nil
}

// isList reports whether the flag may be given more than once.
func isList(flags []cli.Flag, name string) bool {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return f.Names()[0] == name })
	_, many := flags[i].(*cli.StringSliceFlag)
	return many
}

func setFlag(c *cli.Context, name string, values []string) error {
	for _, v := range values {
		if err := c.Set(name, v); err != nil {
			hint := ""
			if _, isPeriod := c.Value(name).(time.Duration); isPeriod {
				hint = "; write 5s or 500ms"
			}
			return fmt.Errorf("%s is not a good value for --%s%s", quote(v), name, hint)
		}
	}
	return nil
}

// splitList splits a list at its commas.
func splitList(s string) []string {
	var out []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// configFile is a configuration file: "name" or "verb.name" to values.
type configFile map[string][]string

func (f configFile) values(verb, flag string) ([]string, bool) {
	key := flag
	if own(verb, flag) {
		key = verb + "." + flag
	}
	v, ok := f[key]
	return v, ok
}

// readConfig reads the file and refuses what no flag is called.
func readConfig(path string, app *cli.App) (configFile, error) {
	var raw map[string]any
	if _, err := toml.DecodeFile(path, &raw); err != nil {
		return nil, usage("configuration file %s: %v", path, err)
	}
	known := make(map[string]bool)
	for _, verb := range app.Commands {
		for name := range flagsOf(verb) {
			if len(name) == 1 || name == "help" || name == "config" {
				continue
			}
			if own(verb.Name, name) {
				name = verb.Name + "." + name
			}
			known[name] = true
		}
	}
	file := make(configFile)
	var add func(prefix string, table map[string]any) error
	add = func(prefix string, table map[string]any) error {
		for _, k := range slices.Sorted(maps.Keys(table)) {
			key := prefix + k
			if sub, ok := table[k].(map[string]any); ok && prefix == "" && !known[key] {
				if err := add(key+".", sub); err != nil {
					return err
				}
				continue
			}
			if !known[key] {
				return usage("configuration file %s: there is no key %s%s", path, quote(key), nearest.Hint(key, slices.Sorted(maps.Keys(known)),
					"keys are the names of flags, those of a verb other than agent in a table of its name"))
			}
			values, err := configValue(table[k])
			if err != nil {
				return usage("configuration file %s: %s: %v", path, key, err)
			}
			file[key] = values
		}
		return nil
	}
	return file, add("", raw)
}

// configValue writes a TOML value as the flag would be written.
func configValue(v any) ([]string, error) {
	values, ok := v.([]any)
	if !ok {
		values = []any{v}
	}
	var out []string
	for _, v := range values {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case bool:
			out = append(out, strconv.FormatBool(v))
		case int64:
			out = append(out, strconv.FormatInt(v, 10))
		case float64:
			out = append(out, strconv.FormatFloat(v, 'g', -1, 64))
		default:
			return nil, errors.New("is neither text, a number, true or false, nor a list of them")
		}
	}
	return out, nil
}
