package sp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parley-mesh/parley/sp"
)

func ExampleRequester() {
	upper := func(_ context.Context, in sp.Inbound) []byte { return bytes.ToUpper(in.Body) }
	rep, err := sp.ListenReplier("tcp://127.0.0.1:0", upper, sp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rep.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := sp.DialRequester(ctx, rep.URL(), sp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer req.Close()

	reply, err := req.Request(ctx, []byte("hello"))
	fmt.Println(string(reply), err)
	// Output: HELLO <nil>
}

func ExamplePusher() {
	arrived := make(chan string)
	pull, err := sp.ListenPuller("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) {
		arrived <- string(in.Body)
	}, sp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pull.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	push, err := sp.DialPusher(ctx, pull.URL(), sp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer push.Close()

	fmt.Println("queued:", push.Send(ctx, []byte("hello")))
	fmt.Println("written:", push.Drain(ctx))
	fmt.Println("arrived:", <-arrived)
	// Output:
	// queued: <nil>
	// written: <nil>
	// arrived: hello
}

// What a caller knows when a request fails.
func ExampleRequester_Request() {
	known := func(err error) string {
		switch {
		case err == nil, errors.Is(err, sp.ErrTooLarge):
			return "the peer has not seen it: too large"
		case errors.Is(err, sp.ErrNotSent):
			return "the peer has not seen it and will not"
		default:
			return "the peer may have handled it"
		}
	}
	deaf := func(ctx context.Context, _ sp.Inbound) []byte { <-ctx.Done(); return nil }
	rep, err := sp.ListenReplier("tcp://127.0.0.1:0", deaf, sp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	req, err := sp.DialRequester(context.Background(), rep.URL(), sp.Config{MaxMessage: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = req.Request(context.Background(), make([]byte, 2000))
	fmt.Println(known(err))

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = req.Request(ctx, []byte("hello"))
	fmt.Println(known(err))

	_ = rep.Close()
	<-req.Done()
	_, err = req.Request(context.Background(), []byte("hello"))
	fmt.Println(known(err))
	_ = req.Close()
	// Output:
	// the peer has not seen it: too large
	// the peer may have handled it
	// the peer has not seen it and will not
}
