package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/parley-mesh/parley/cluster"
)

// node starts a member on a free port of loopback.
func node(name string) *cluster.Node {
	n, err := cluster.Start(cluster.Config{
		Name:    name,
		Bind:    "127.0.0.1:0",
		Profile: cluster.Local,
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	return n
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	billing1 := node("billing-1")
	defer billing1.Close()
	billing2 := node("billing-2")
	defer billing2.Close()

	// Advertise, then join: nobody sees billing-2 without its service.
	if err := billing2.Advertise("invoices", ":41234"); err != nil {
		fmt.Println(err)
	}
	if _, err := billing2.Join(ctx, billing1.Addr()); err != nil {
		fmt.Println(err)
	}

	if err := billing1.WaitForNode(ctx, "billing-2", "invoices"); err != nil {
		fmt.Println(err)
	}
	where, err := billing1.Lookup("billing-2", "invoices")
	fmt.Println(where.URL, err)

	_, err = billing1.Lookup("biling-2", "invoices")
	fmt.Println(err, errors.Is(err, cluster.ErrUnknownNode))

	if err := billing2.Leave(ctx); err != nil {
		fmt.Println(err)
	}
	_, err = billing1.Lookup("billing-2", "invoices")
	fmt.Println(errors.Is(err, cluster.ErrLeft))
	// Output:
	// tcp://127.0.0.1:41234 <nil>
	// cluster: lookup biling-2: unknown node (did you mean billing-2 or billing-1?) true
	// true
}

func ExampleNode_Events() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, b := node("a"), node("b")
	defer a.Close()
	defer b.Close()

	events := a.Events(ctx) // the subscription begins here
	if _, err := b.Join(ctx, a.Addr()); err != nil {
		fmt.Println(err)
	}
	go b.Leave(ctx)
	for e := range events {
		fmt.Println(e.Type, e.Member.Name)
		if e.Type == cluster.EventLeft {
			break
		}
	}
	// Output:
	// joined b
	// left b
}

func ExampleNode_Providers() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a := node("a")
	defer a.Close()

	for set := range a.Providers(ctx, "mail") {
		fmt.Println(len(set))
		if len(set) == 1 {
			break
		}
		if err := a.Advertise("mail", ":1234"); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// 0
	// 1
}
