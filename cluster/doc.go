// Package cluster knows who is here and where each node offers what. Its core
// type is [Node]: one member of a gossip cluster.
//
//	node, err := cluster.Start(cluster.Config{Name: "billing-1", Bind: "10.0.0.4:7946"})
//	if err != nil {
//		return err
//	}
//	defer node.Close()
//	if err := node.Advertise("invoices", ":41234"); err != nil {
//		return err
//	}
//	_, err = node.Join(ctx, "10.0.0.5:7946")
//	where, err := node.Lookup("billing-2", "invoices") // tcp://10.0.0.5:41234
//
// Advertise first, then join: then nobody ever sees the node without its
// services. Leave says goodbye, Close goes without a word.
//
// # Names, instances and epochs
//
// A node has a name that its operator chose, an instance (random, new at each
// start) and an epoch that grows with each start. All three travel in the
// node's gossip metadata together with its tags and services. To memberlist
// each start is a member of its own, so a node that was killed and comes back,
// at once and elsewhere, is visible there at once: of several instances under
// one name the one alive with the highest epoch counts. The same rule decides
// between two running nodes that were given one name: the newer one stays, the
// other stops by itself with [ErrNameTaken].
//
// # What is known of a node
//
// [Alive], [Left] (it said goodbye) or [Failed] (it did not). Left nodes stay
// in the list for an hour, failed ones for a day, so that an operator sees what
// is missing; their known addresses are tried again and again, so that a
// cluster which was cut in two heals by itself. Observers are short-lived
// clients; they are in no list but may look.
//
// Clusters that share hosts or address ranges should have names (Config.Cluster):
// otherwise a node that looks for a lost member may find another cluster's at
// its old address, and the two become one.
//
// Lookups, lists and recipients are answered from memory, never from the
// network. What they say of others is what those others claim; gossip with a
// Key keeps strangers from claiming anything.
//
// # Concurrency
//
// All methods of Node may be called concurrently, and what they return is the
// caller's own. After Close, Leave or a lost name they return errors that match
// [ErrClosed] and net.ErrClosed.
//
// This package is the only door to hashicorp/memberlist.
package cluster
