// Package broadcast carries one message to every node of the cluster, in two
// ways that promise different things. Its core type is [Broadcaster].
//
//	node, err := cluster.Start(cluster.Config{Name: "billing-1"})
//	mail, err := unicast.Listen(node, mux, unicast.Config{})
//	all, err := broadcast.Open(node, mail, broadcast.HandlerFunc(
//		func(ctx context.Context, m broadcast.Message) error {
//			log.Printf("%s says %q to all", m.From, m.Body)
//			return nil
//		}), broadcast.Config{})
//	defer all.Close()
//	err = all.BestEffort("cache.flush", []byte("users"))           // small, soon, probably everyone
//	receipt, err := all.Reliable(ctx, "config.new", body)          // any size; the receipt names who has it
//
// # Best effort
//
// [Broadcaster.BestEffort] puts the message into the cluster's gossip. Every
// node that sees it for the first time passes it on and hands it to its
// handler, once; whoever missed it gets it with one of the next push/pull
// exchanges, as long as it is at most two minutes old. There is no order and
// no acknowledgement. Gossip has a small, fixed capacity that the whole cluster
// shares (about ten messages of 200 bytes a second for 50 nodes): it is for
// hints. A call beyond it gets an error and nothing is queued.
//
// A node that has just started is not given what was said before it came: its
// first push/pull exchange only tells it which messages are old news. The same
// goes for a Broadcaster that is opened on a node after another: push/pull brings
// it nothing older than itself. (It does not know what the first one got, so a copy
// by gossip that is still under way, as for a second or two, is news to it.)
//
// # Reliable
//
// [Broadcaster.Reliable] asks the cluster who is alive, sends the message to
// each of them over the acknowledged links of the overlay, and returns when
// each has answered or failed. The [Receipt] names every one of them.
//
// # The receiving side
//
// Both kinds come to the same [Handler] with the sender's name. It runs on one
// goroutine, message after message in order of arrival, behind a queue of at
// most 1,024 messages and 8 MiB (or one message, when MaxMessage is larger).
// When the queue is full, a best-effort message is dropped and counted, and a
// reliable one waits for room until its sender's time is over; beyond 256 that
// wait the sender is told at once that this node is busy. A reliable message that
// the handler has not begun with when its sender's time is over is not handled;
// the answer is "not begun in time", for a sender that still gets it.
//
// A node's own handler is not called for what the node itself broadcasts.
package broadcast
