package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/agent"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
	"github.com/urfave/cli/v2"
)

const (
	joinTime  = 10 * time.Second // for the seeds of --join to answer
	leaveTime = 5 * time.Second  // for a goodbye
)

func (p *program) agentCommand() *cli.Command {
	return &cli.Command{
		Name: "agent", Category: "Nodes",
		Usage: "run a node",
		Description: `The agent is a node of the cluster. It says where it is on standard error, logs
there too, and prints the messages that no "parley listen" takes on standard output.

An interrupt or SIGTERM makes it leave the cluster and end with exit code 0, within
5 seconds; a second one ends it at once. SIGHUP makes it read its configuration
file again: the log level and the tags.

To wait until it is up, wait for the file of --ready-file: it is there once the
node is reachable and, with --join or --retry-join, has joined, and it is gone when
the agent is.`,
		CustomHelpTemplate: `
$ parley agent --name node1
$ parley agent --name node2 --join 127.0.0.1:7946
$ parley agent --bind 0.0.0.0:7946 --retry-join seed.example.org --key-file cluster.key
$ parley agent --config /etc/parley.toml --ready-file /run/parley.ready`,
		Flags: append(append([]cli.Flag{
			text("name", "n", "`NAME` of the node, unique in the cluster (default: the host's name)", ""),
			text("bind", "b", "`ADDRESS` to listen on for gossip, TCP and UDP (default: 127.0.0.1:7946, or a free port there if that one is taken)", ""),
			text("advertise", "", "`ADDRESS` that others are told (default: that of --bind, or of the default route)", ""),
			list("join", "", "join the cluster at `HOST:PORT`, and fail if nobody answers; repeatable"),
			list("retry-join", "", "join the cluster at `HOST:PORT`, and keep trying; repeatable"),
			list("tag", "", "a `KEY=VALUE` that all nodes know about this one; repeatable"),
			text("data-dir", "", "`DIRECTORY` to remember in how often the node was started, so that the newest wins even if the clock is wrong", ""),
			integer("rep-port", "", "TCP `PORT` for sends and requests; 0: any free one", 0),
			integer("pull-port", "", "TCP `PORT` for pushes; 0: any free one", 0),
			text("socket", "s", "control socket, a `PATH` (default: NAME.sock in "+control.Dir()+")", ""),
			text("ready-file", "", "`FILE` to write when the node is up, and to remove at the end", ""),
			text("log-level", "l", "`LEVEL` of the log: debug, info, warn or error", "info"),
			text("log-format", "", "`FORMAT` of the log: text or json", "text"),
		}, gossipFlags()...), configFlags()...),
		Action: p.verb("agent", 0, 0, (*call).runAgent),
	}
}

// runAgent runs a node until it is told to stop.
func (c *call) runAgent() error {
	level := new(slog.LevelVar)
	cfg, err := c.agentConfig(level)
	if err != nil {
		return err
	}
	s := c.catchSignals()
	defer s.stop()
	a, err := c.startAgent(&cfg)
	if err != nil {
		return err
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context.Context), leaveTime)
		defer cancel()
		return a.Stop(ctx)
	}
	c.banner(a, cfg)
	ready, err := c.enter(s.ctx, a)
	if err != nil {
		_ = stop()
		if s.ctx.Err() != nil {
			return nil // interrupted before it joined: that is no failure to join
		}
		return err
	}
	defer ready.close()

	for {
		select {
		case <-s.reload:
			c.reload(a, level, cfg.Cluster.Logger)
		case <-ready.when:
			if err := ready.write(a); err != nil {
				_ = stop()
				return usage("the ready file %s could not be written: %v", ready.path, err)
			}
		case <-a.Done():
			return c.ended(a, a.Err())
		case <-s.ctx.Done():
			ready.close()
			c.say("leaving")
			if err := stop(); err != nil {
				return c.ended(a, err)
			}
			c.say("left")
			return nil
		}
	}
}

// ended says why the agent is no more.
func (c *call) ended(a *agent.Agent, err error) error {
	switch {
	case err == nil:
		c.say("left")
		return nil
	case errors.Is(err, cluster.ErrNameTaken):
		return control.NewFault(control.CodeInternal, "", fmt.Sprintf(
			"the agent %s stopped: %v (--name)", a.Cluster.Name(), err), err)
	}
	return control.NewFault(control.CodeInternal, "", fmt.Sprintf("the agent %s has ended, and not cleanly: %v", a.Cluster.Name(), err), err)
}

// signals of an agent. The first interrupt ends ctx, the second the process.
type signals struct {
	ctx    context.Context
	reload chan os.Signal
	stop   func()
}

func (c *call) catchSignals() signals {
	ctx, cancel := context.WithCancel(c.Context.Context)
	ends, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(ends, os.Interrupt, syscall.SIGTERM)
	if reload != nil {
		signal.Notify(reloads, reload)
	}
	// Whoever reads our output may go away; that is no reason to fall dead.
	ignoreBrokenPipe()
	quit := make(chan struct{})
	go func() { // ended by stop
		for {
			select {
			case s := <-ends:
				if ctx.Err() != nil {
					c.say("ending at once")
					c.exit((&signalError{signal: s}).exitCode())
				}
				cancel()
			case <-quit:
				return
			}
		}
	}()
	return signals{ctx: ctx, reload: reloads, stop: func() {
		signal.Stop(ends)
		signal.Stop(reloads)
		cancel()
		close(quit)
	}}
}

// agentConfig reads the flags.
func (c *call) agentConfig(level *slog.LevelVar) (agent.Config, error) {
	var cfg agent.Config
	name := c.String("name")
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return cfg, usage("the host's name could not be read: %v; give one with --name", err)
		}
		if name = cleanName(host); name == "" {
			return cfg, usage("the host's name %s cannot name a node; give one with --name", quote(host))
		}
	}
	if err := codec.ValidName(name); err != nil {
		return cfg, usage("--name: %v", err)
	}
	tags, err := parseTags(c.StringSlice("tag"))
	if err != nil {
		return cfg, err
	}
	key, err := c.key()
	if err != nil {
		return cfg, err
	}
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return cfg, usage("--log-level is %s; it can be debug, info, warn or error", quote(c.String("log-level")))
	}
	log, err := newLogger(c.Stderr, c.String("log-format"), level)
	if err != nil {
		return cfg, err
	}
	for _, port := range []string{"rep-port", "pull-port"} {
		if n := c.Int(port); n < 0 || n > 65535 {
			return cfg, usage("--%s is %d; a port is between 1 and 65535, and 0 means any free one", port, n)
		}
	}
	cfg = agent.Config{
		Cluster: cluster.Config{
			Name: name, Cluster: c.String("cluster"), Bind: c.String("bind"), Advertise: c.String("advertise"),
			Profile: cluster.Profile(c.String("profile")), Key: key, Tags: tags,
			RetryJoin: c.StringSlice("retry-join"), DataDir: c.String("data-dir"), Logger: log,
		},
		Mail:   unicast.Config{RepPort: c.Int("rep-port"), PullPort: c.Int("pull-port")},
		Output: c.Stdout, Version: version().String(),
	}
	return cfg, nil
}

// cleanName makes of a host's name one that a node can have.
func cleanName(host string) string {
	host, _, _ = strings.Cut(host, ".")
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, host), "-_")
	return name[:min(len(name), codec.MaxName)]
}

func newLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usage("--log-format is %s; it can be text or json", quote(format))
}

// startAgent takes the control socket and starts the agent. One that was not told
// where to listen takes another port when the usual one is taken, so that several
// can be tried on one machine.
func (c *call) startAgent(cfg *agent.Config) (*agent.Agent, error) {
	path := c.String("socket")
	if path == "" {
		path = control.PathIn(control.Dir(), cfg.Cluster.Name)
	}
	socket, err := control.Listen(path)
	if err != nil {
		return nil, agent.StartFault(cfg.Cluster, err)
	}
	cfg.Socket = socket
	a, err := c.startNode(cfg)
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	return a, nil
}

func (c *call) startNode(cfg *agent.Config) (*agent.Agent, error) {
	// An agent that was killed left its ready file behind. It is dead, since the
	// socket is ours.
	if path := c.String("ready-file"); path != "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, usage("the ready file that was left behind could not be removed: %v", err)
		}
	}
	told := cfg.Cluster.Bind != ""
	if !told {
		cfg.Cluster.Bind = fmt.Sprintf("127.0.0.1:%d", cluster.DefaultPort)
	}
	a, err := agent.Start(*cfg)
	var taken *agent.InUseError
	if !told && errors.As(err, &taken) && taken.What == "--bind" {
		c.say("port %d is taken, so this node uses another one; --bind says which", cluster.DefaultPort)
		cfg.Cluster.Bind = "127.0.0.1:0"
		a, err = agent.Start(*cfg)
	}
	if err != nil {
		return nil, agent.StartFault(cfg.Cluster, err)
	}
	return a, nil
}

// reload reads the configuration again: the log level and the tags, unless flags
// or the environment set them.
func (c *call) reload(a *agent.Agent, level *slog.LevelVar, log *slog.Logger) {
	path := c.String("config")
	if path == "" {
		log.Warn("nothing to read again: there is no --config")
		return
	}
	file, err := readConfig(path, c.app)
	if err != nil {
		log.Error("configuration not read again, the old one stays", "err", err)
		return
	}
	if c.from["log-level"] <= fromFile {
		value := "info"
		if v, ok := file.values("agent", "log-level"); ok {
			value = strings.Join(v, ",")
		}
		if err := level.UnmarshalText([]byte(value)); err != nil {
			log.Error("log level not changed", "err", err)
		}
	}
	if c.from["tag"] <= fromFile {
		values, _ := file.values("agent", "tag")
		tags, err := parseTags(values)
		if err == nil {
			err = a.ReplaceTags(tags)
		}
		if err != nil {
			log.Error("tags not changed", "err", err)
		}
	}
	log.Info("configuration read again", "config", path, "log-level", level.Level().String())
}
