// Command pingpong is the classic first exercise with gossip membership: node1 waits,
// node2 joins it and sends a ping with a number every second, node1 answers each
// ping with a pong, and each sends one more than the number it received last.
//
//	go run ./examples/pingpong node1
//	go run ./examples/pingpong node2 --join 127.0.0.1:7946
//
// In the classic form everything is broadcast and every node filters. Here a message
// for one node goes to that node alone; --via reliable and --via gossip show the
// same conversation as broadcasts, which a third node hears too.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

var (
	flags    = flag.NewFlagSet("pingpong NAME", flag.ExitOnError)
	join     = flags.String("join", "", "`address` of a node to join and ping; without it wait for pings and answer them")
	bind     = flags.String("bind", "", "`address` for gossip (default 127.0.0.1:7946, with --join a free port)")
	to       = flags.String("to", "node1", "`node` that the pings are for")
	via      = flags.String("via", "unicast", "`way` that messages go: unicast, reliable or gossip")
	interval = flags.Duration("interval", time.Second, "`time` between two pings")
	count    = flags.Int("count", 0, "leave after so many pings answered or pongs received (0: stay)")
)

func main() {
	if len(os.Args) < 2 || os.Args[1][0] == '-' {
		flags.Usage()
		os.Exit(2)
	}
	flags.Parse(os.Args[2:])
	if *via != "unicast" && *via != "reliable" && *via != "gossip" {
		fmt.Fprintf(os.Stderr, "pingpong: --via %s: there are unicast, reliable and gossip\n", *via)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pingpong:", err)
		os.Exit(1)
	}
}

// message is what a node hears, whichever way it came.
type message struct {
	from, topic string
	body        []byte
}

func run(ctx context.Context, name string) error {
	address := "127.0.0.1:7946"
	if *join != "" {
		address = "127.0.0.1:0"
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, err := cluster.Start(cluster.Config{
		Name: name, Bind: cmp.Or(*bind, address), Profile: cluster.Local, Logger: log,
	})
	if err != nil {
		return err
	}
	defer node.Close()

	// What is sent to this node and what is broadcast end in one queue. While it is
	// full, senders are told that this node is busy.
	heard := make(chan message, 64)
	hear := func(m message) error {
		select {
		case heard <- m:
			return nil
		default:
			return unicast.ErrBusy
		}
	}
	mail, err := unicast.Listen(node, unicast.HandlerFunc(func(_ context.Context, m unicast.Message) ([]byte, error) {
		return nil, hear(message{m.From, m.Topic, m.Body})
	}), unicast.Config{Logger: log})
	if err != nil {
		return err
	}
	defer mail.Close()
	all, err := broadcast.Open(node, mail, broadcast.HandlerFunc(func(_ context.Context, m broadcast.Message) error {
		return hear(message{m.From, m.Topic, m.Body})
	}), broadcast.Config{Logger: log})
	if err != nil {
		return err
	}
	defer all.Close()

	p := player{name, mail, all}
	var tick <-chan time.Time // of the node that pings
	if *join == "" {
		p.say("listens on %s", node.Addr())
	} else {
		if _, err := node.Join(ctx, *join); err != nil {
			return err
		}
		if err := node.WaitForNode(ctx, *to, unicast.ServiceRep); err != nil {
			return err
		}
		p.say("joined %s", *join)
		ticker := time.NewTicker(*interval)
		defer ticker.Stop()
		tick = ticker.C
	}

	last := 0 // the number received last
	for rounds := 0; (*count == 0 || rounds < *count) && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-tick:
			p.send(ctx, *to, "ping", last+1)
		case m := <-heard:
			value, err := strconv.Atoi(string(m.body))
			if err != nil {
				p.say("<- %s  %s: %v", m.from, m.topic, err)
				continue
			}
			p.say("<- %s  %s %d", m.from, m.topic, value)
			switch {
			case m.topic == "ping" && *join == "":
				p.send(ctx, m.from, "pong", value+1)
				rounds++
			case m.topic == "pong" && *join != "":
				last = value
				rounds++
			}
		}
	}

	// Goodbye first, so that nobody sends here any more; then what is under way ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := node.Leave(ctx); err != nil {
		return err
	}
	p.say("left")
	return mail.Shutdown(ctx)
}

type player struct {
	name string
	mail *unicast.Messenger
	all  *broadcast.Broadcaster
}

// send sends value under topic to one node or, by broadcast, to all of them. What
// goes wrong is said and no more: the other node may be back for the next one.
func (p player) send(ctx context.Context, to, topic string, value int) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var err error
	body := strconv.AppendInt(nil, int64(value), 10)
	switch *via {
	case "unicast": // nil: that node's handler has it
		p.say("-> %s  %s %d", to, topic, value)
		err = p.mail.Send(ctx, to, topic, body)
	case "reliable": // the receipt names who has it
		p.say("-> all  %s %d", topic, value)
		var receipt broadcast.Receipt
		receipt, err = p.all.Reliable(ctx, topic, body)
		p.say("   %s %d handled by %v", topic, value, receipt.Handled)
	case "gossip": // nil: everybody will hear it, probably
		p.say("-> all  %s %d", topic, value)
		err = p.all.BestEffort(topic, body)
	}
	if err != nil {
		p.say("%v", err)
	}
}

// say prints one line of the timeline.
func (p player) say(format string, args ...any) {
	fmt.Printf("%s %s %s\n", time.Now().Format("15:04:05.000"), p.name, fmt.Sprintf(format, args...))
}
