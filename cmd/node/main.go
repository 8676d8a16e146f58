// Parley is a node of a gossip cluster, and the command line to it; see
// "parley help".
package main

import (
	"context"
	"os"

	"github.com/parley-mesh/parley/cmd/node/internal/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args, cli.Streams{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}))
}
