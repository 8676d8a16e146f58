package unicast_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/parley-mesh/parley/unicast"
)

// named is a Handler that answers with its name.
func named(name string) unicast.Handler {
	return on(func(context.Context, unicast.Message) ([]byte, error) { return []byte(name), nil })
}

func TestMuxRoutes(t *testing.T) {
	mux := unicast.NewMux()
	for _, pattern := range []string{"orders.create", "orders.*", "orders.eu.*", "ord*", ""} {
		if err := mux.Route(pattern, named(pattern)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(topic string) (string, error) {
		reply, err := mux.Handle(t.Context(), unicast.Message{Topic: topic})
		return string(reply), err
	}
	for topic, want := range map[string]string{
		"orders.create":    "orders.create",
		"orders.delete":    "orders.*",
		"orders.":          "orders.*",
		"orders.eu.create": "orders.eu.*",
		"orders":           "ord*",
		"":                 "",
	} {
		if got, err := ask(topic); got != want || err != nil {
			t.Errorf("topic %q went to %q, %v; want %q", topic, got, err, want)
		}
	}
	if _, err := ask("invoices"); !errors.Is(err, unicast.ErrNoListener) {
		t.Errorf("topic without a route: %v, want ErrNoListener", err)
	}
	mux.Route("*", named("*"))
	if got, err := ask("invoices"); got != "*" || err != nil {
		t.Errorf("with a route for all: %q, %v", got, err)
	}
	if !mux.Unroute("orders.*") || mux.Unroute("orders.*") || mux.Unroute("a*b") {
		t.Error("Unroute does not tell what was registered")
	}
	if got, _ := ask("orders.delete"); got != "ord*" {
		t.Errorf("after Unroute the topic went to %q, want the next longest prefix", got)
	}
}

func TestMuxRefusesBadRoutes(t *testing.T) {
	mux := unicast.NewMux()
	mux.Route("taken", echo)
	mux.Route("taken.*", echo)
	for pattern, h := range map[string]unicast.Handler{
		"taken": echo, "taken.*": echo, "a*b": echo, "**": echo, "new\nline": echo, "$mine": echo, "nil": nil,
	} {
		if err := mux.Route(pattern, h); err == nil {
			t.Errorf("Route(%q) was taken", pattern)
		}
	}
	if err := mux.Route("$mine", echo); !errors.Is(err, unicast.ErrReservedTopic) {
		t.Errorf("reserved topic: %v", err)
	}
}

func TestMuxChangesWhileInUse(t *testing.T) {
	mux := unicast.NewMux()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				mux.Route("a.*", echo)
				mux.Handle(t.Context(), unicast.Message{Topic: "a.b"})
				mux.Unroute("a.*")
			}
		})
	}
	wg.Wait()
}
