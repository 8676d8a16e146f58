// Command embed is a service with a Parley node inside.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: embed NAME BIND [SEED...]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serve(ctx, os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, name, bind string, seeds []string) error {
	node, err := cluster.Start(cluster.Config{Name: name, Bind: bind})
	if err != nil {
		return err
	}
	defer node.Close()
	mux := unicast.NewMux()
	if err := mux.Route("greet", unicast.HandlerFunc(func(_ context.Context, m unicast.Message) ([]byte, error) {
		return []byte("hello " + m.From + ", this is " + name), nil
	})); err != nil {
		return err
	}
	mail, err := unicast.Listen(node, mux, unicast.Config{})
	if err != nil {
		return err
	}
	defer mail.Close()
	if len(seeds) > 0 { // only now: nobody shall see a node without its mailbox
		if _, err := node.Join(ctx, seeds...); err != nil {
			return err
		}
		reply, err := mail.Request(ctx, "alice", "greet", nil)
		if err != nil {
			return err
		}
		log.Printf("%s", reply)
	}
	log.Print(name, " is ready on ", node.Addr())
	<-ctx.Done() // what else the service does
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(node.Leave(end), mail.Shutdown(end))
}
