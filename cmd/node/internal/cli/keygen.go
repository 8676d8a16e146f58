package cli

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"
)

func (p *program) keygenCommand() *cli.Command {
	return &cli.Command{
		Name: "keygen", Category: "Program",
		Usage: "make a gossip key",
		Description: `32 random bytes in base64. All nodes of a cluster have the same key; who has none
cannot join or read the gossip. Give it with --key-file or PARLEY_KEY.`,
		CustomHelpTemplate: `
$ parley keygen --out cluster.key
$ parley agent --key-file cluster.key
$ export PARLEY_KEY=$(parley keygen)`,
		Flags: append(configFlags(), text("out", "o", "write it to a new `FILE` that only you can read", "")),
		Action: p.verb("keygen", 0, 0, func(c *call) error {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			text := []byte(base64.StdEncoding.EncodeToString(key) + "\n")
			out := c.String("out")
			if out == "" {
				_, err := c.Stdout.Write(text)
				return err
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return usage("%s is there already, and a key that is in use must not be lost; choose another --out or remove it", out)
			}
			if err != nil {
				return usage("the key could not be written: %v", err)
			}
			_, err = f.Write(text)
			if err := errors.Join(err, f.Close()); err != nil {
				return usage("the key could not be written: %v", err)
			}
			c.say("wrote %s", out)
			return nil
		}),
	}
}
