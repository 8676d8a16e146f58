package unicast_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// node stands for a *cluster.Node in these examples.
func node(name string) unicast.Directory { return exampleWorld.node(name) }

var exampleWorld = newWorld()

func Example() {
	mux := unicast.NewMux()
	mux.Route("shout.*", unicast.HandlerFunc(func(_ context.Context, m unicast.Message) ([]byte, error) {
		return []byte(strings.ToUpper(string(m.Body)) + ", " + m.From + "!"), nil
	}))
	billing, err := unicast.Listen(node("billing"), mux, unicast.Config{Logger: silent})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer billing.Close()
	shop, err := unicast.Listen(node("shop"), nil, unicast.Config{Logger: silent})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shop.Close()

	reply, err := shop.Request(context.Background(), "billing", "shout.hello", []byte("good morning"))
	fmt.Printf("%s %v\n", reply, err)
	// Output: GOOD MORNING, shop! <nil>
}

// An error says what became of the message.
func ExampleError() {
	depot, err := unicast.Listen(node("depot"), unicast.NewMux(), unicast.Config{Logger: silent})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer depot.Close()

	err = depot.Send(context.Background(), "deopt", "parcel", nil)
	fmt.Println(err)

	err = depot.Send(context.Background(), "depot", "parcel", nil)
	var failure *unicast.Error
	if errors.As(err, &failure) && failure.Outcome == unicast.NotDelivered {
		fmt.Println("safe to send again:", errors.Is(err, unicast.ErrNoListener))
	}
	// Output:
	// unicast: send to deopt: unknown node (NOT DELIVERED)
	// safe to send again: true
}

// An Inbox turns messages that arrive into messages that are fetched.
func ExampleInbox() {
	inbox := unicast.NewInbox(100, 1<<20)
	mail, err := unicast.Listen(node("desk"), inbox, unicast.Config{Logger: silent})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mail.Close()

	ctx := context.Background()
	if err := mail.Send(ctx, "desk", "memo", []byte("buy milk")); err != nil {
		fmt.Println(err)
	}
	m, err := inbox.Recv(ctx)
	fmt.Printf("%v from %s on %q: %s %v\n", m.Kind, m.From, m.Topic, m.Body, err)
	// Output: send from desk on "memo": buy milk <nil>
}

func ExampleMux() {
	mux := unicast.NewMux()
	say := func(s string) unicast.Handler {
		return unicast.HandlerFunc(func(context.Context, unicast.Message) ([]byte, error) { return []byte(s), nil })
	}
	mux.Route("orders.create", say("the whole topic"))
	mux.Route("orders.*", say("a prefix"))
	for _, topic := range []string{"orders.create", "orders.delete", "invoices"} {
		reply, err := mux.Handle(context.Background(), unicast.Message{Kind: codec.KindRequest, Topic: topic})
		fmt.Printf("%s: %s %v\n", topic, reply, err)
	}
	// Output:
	// orders.create: the whole topic <nil>
	// orders.delete: a prefix <nil>
	// invoices:  no listener on topic "invoices"
}
