package cli

import (
	"context"
	"encoding/base64"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/agent"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

// closeTime bounds how long a short-lived node takes to leave, beyond the time
// of its call, when everything it sent is written already.
const closeTime = time.Second

// agent finds the local agent.
func (c *call) agent() (*control.Client, error) {
	socket, name := c.String("socket"), c.String("agent")
	switch bySocket, byName := c.from["socket"], c.from["agent"]; {
	case socket == "" || name == "":
	case bySocket > byName:
		name = ""
	case byName > bySocket:
		socket = ""
	default:
		return nil, usage("--socket and --agent both say which agent; give one of them")
	}
	path, err := control.Choose(socket, name)
	if err != nil {
		return nil, err
	}
	return control.NewClient(path), nil
}

// mail runs do with the local agent, or with a short-lived node of our own if
// there is a --join.
func (c *call) mail(ctx context.Context, do func(context.Context, control.Mail) error) error {
	seeds := c.StringSlice("join")
	if len(seeds) == 0 {
		a, err := c.agent()
		if err != nil {
			return err
		}
		defer a.Close()
		return do(ctx, a)
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if c.Bool("verbose") {
		log = slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	client, err := agent.Dial(ctx, agent.ClientConfig{
		Seeds: seeds, Cluster: c.String("cluster"), Key: key, Profile: cluster.Profile(c.String("profile")), Logger: log,
	})
	if err != nil {
		return err
	}
	done := do(ctx, client)
	// Also after an interrupt there is time for a goodbye.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(closeTime, remaining(ctx)))
	defer cancel()
	if err := client.Close(ctx); done == nil && err != nil {
		return control.NewFault(control.CodeNoReply, control.Unknown, "leaving the cluster failed, so some of what was sent may be lost (UNKNOWN): "+err.Error(), err)
	}
	return done
}

func remaining(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok || ctx.Err() != nil {
		return 0
	}
	return time.Until(deadline)
}

// key is the gossip key that the flags name, if they name one.
func (c *call) key() ([]byte, error) {
	file, inline := c.String("key-file"), c.String("key")
	if file != "" && inline != "" {
		switch {
		case c.from["key-file"] > c.from["key"]:
			inline = ""
		case c.from["key"] > c.from["key-file"]:
			file = ""
		default:
			return nil, usage("there is both a --key-file and a --key; give one of them")
		}
	}
	what, encoded := "the gossip key", inline
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, usage("the gossip key could not be read: %v; \"parley keygen --out %s\" makes one", err, file)
		}
		what, encoded = "the gossip key in "+file, string(b)
	}
	encoded = strings.TrimSpace(encoded)
	if encoded == "" {
		if file != "" {
			return nil, usage("%s is empty; \"parley keygen\" makes one", what)
		}
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, usage("%s is not base64; \"parley keygen\" makes a good one", what)
	}
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return nil, usage("%s has %d bytes and must have 16, 24 or 32; \"parley keygen\" makes a good one", what, n)
	}
	return key, nil
}
