package broadcast_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

// start puts a whole node together: the member, its mailbox, its broadcaster.
// A nil handler makes a node that only sends.
func start(name string, h broadcast.Handler) (node *cluster.Node, all *broadcast.Broadcaster, stop func()) {
	quiet := slog.New(slog.DiscardHandler)
	node, err := cluster.Start(cluster.Config{Name: name, Bind: "127.0.0.1:0", Profile: cluster.Local, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	mail, err := unicast.Listen(node, unicast.NewMux(), unicast.Config{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	all, err = broadcast.Open(node, mail, h, broadcast.Config{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	return node, all, func() { all.Close(); mail.Close(); node.Close() }
}

// join makes the nodes one cluster and waits until all see all.
func join(ctx context.Context, nodes ...*cluster.Node) {
	for _, node := range nodes[1:] {
		if _, err := node.Join(ctx, nodes[0].Addr()); err != nil {
			log.Fatal(err)
		}
	}
	for _, node := range nodes {
		for _, other := range nodes {
			if err := node.WaitForNode(ctx, other.Name(), unicast.ServiceRep); err != nil {
				log.Fatal(err)
			}
		}
	}
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	printer := func(name string) broadcast.HandlerFunc {
		return func(ctx context.Context, m broadcast.Message) error {
			if name == "node3" && string(m.Body) == "v3" {
				return errors.New("v3 is not for me")
			}
			return nil
		}
	}
	node1, all, stop1 := start("node1", printer("node1"))
	defer stop1()
	node2, _, stop2 := start("node2", printer("node2"))
	defer stop2()
	node3, _, stop3 := start("node3", printer("node3"))
	defer stop3()
	join(ctx, node1, node2, node3)

	// The call returns when everyone has handled it, or failed.
	receipt, err := all.Reliable(ctx, "config", []byte("v2"))
	fmt.Println("v2 handled by", receipt.Handled, "error:", err)

	// Nobody overlooks a failure: it is an error, with the names.
	receipt, err = all.Reliable(ctx, "config", []byte("v3"))
	fmt.Println("v3 handled by", receipt.Handled)
	var partial *broadcast.PartialError
	if errors.As(err, &partial) {
		for _, name := range partial.Names() {
			var remote *unicast.RemoteError
			errors.As(partial.Failed[name], &remote)
			fmt.Printf("v3 failed on %s: %s\n", name, remote.Text)
		}
	}
	// Output:
	// v2 handled by [node2 node3] error: <nil>
	// v3 handled by [node2]
	// v3 failed on node3: v3 is not for me
}

func ExampleBroadcaster_BestEffort() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	heard := make(chan string)
	node1, all, stop1 := start("node1", nil) // only sends
	defer stop1()
	node2, _, stop2 := start("node2", broadcast.HandlerFunc(func(ctx context.Context, m broadcast.Message) error {
		select {
		case heard <- fmt.Sprintf("%s on %s: %s", m.From, m.Topic, m.Body):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	defer stop2()
	join(ctx, node1, node2)

	// A hint: small, soon, to everyone, without an answer.
	if err := all.BestEffort("cache.flush", []byte("users")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-heard)

	// Large things go by Reliable.
	fmt.Println(all.BestEffort("cache.fill", make([]byte, 2000)))
	// Output:
	// node1 on cache.flush: users
	// broadcast: best effort: body is 2000 bytes, the limit is 1024 bytes
}
