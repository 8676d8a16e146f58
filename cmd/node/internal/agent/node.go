// Package agent puts a node together: a cluster member, its mailbox and its
// broadcaster ([Node]), and what makes of it a program that runs: listeners that
// come and go, a printer for what nobody listens to, and a control socket
// ([Agent]). It also has the short-lived member that one call from the command
// line can be ([Client]).
package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/unicast"
)

// Node is a member of the cluster with all that Parley can do. Its methods that
// control.Mail names return *control.Faults.
type Node struct {
	Cluster *cluster.Node
	Mail    *unicast.Messenger
	Cast    *broadcast.Broadcaster
}

var _ control.Mail = (*Node)(nil)

// NodeConfig says how a Node is made.
type NodeConfig struct {
	Cluster    cluster.Config
	Mail       unicast.Config
	Messages   unicast.Handler   // nil: the node only sends
	Broadcasts broadcast.Handler // nil: the node only sends
}

// StartNode starts the member, then attaches its mailbox and its broadcaster. It
// joins nobody yet, so nobody sees the node without them.
func StartNode(cfg NodeConfig) (*Node, error) {
	log := cfg.Cluster.Logger
	if log == nil {
		log = slog.Default()
	}
	member, err := cluster.Start(cfg.Cluster)
	if inUse(err) {
		return nil, &InUseError{What: "--bind", Err: err}
	}
	if err != nil {
		return nil, err
	}
	cfg.Mail.MaxMessage = control.MaxMessage
	cfg.Mail.Logger = log
	mail, err := unicast.Listen(member, cfg.Messages, cfg.Mail)
	if err != nil {
		_ = member.Close()
		if inUse(err) {
			err = &InUseError{What: "--rep-port or --pull-port", Err: err}
		}
		return nil, err
	}
	cast, err := broadcast.Open(member, mail, cfg.Broadcasts, broadcast.Config{MaxMessage: control.MaxMessage, Logger: log})
	if err != nil {
		_ = member.Close()
		_ = mail.Close()
		return nil, err
	}
	return &Node{Cluster: member, Mail: mail, Cast: cast}, nil
}

// InUseError says that somebody else has the port that What names.
type InUseError struct {
	What string // the flag
	Err  error
}

func (e *InUseError) Error() string { return e.Err.Error() }
func (e *InUseError) Unwrap() error { return e.Err }

func inUse(err error) bool {
	return err != nil && (errors.Is(err, syscall.EADDRINUSE) ||
		// What Windows says, whose number syscall does not name.
		strings.Contains(err.Error(), "Only one usage of each socket address"))
}

// Leave says goodbye, lets what was accepted be answered, and closes the node.
// It takes no longer than ctx; what was not done by then is in the error.
func (n *Node) Leave(ctx context.Context) error {
	left := n.Cluster.Leave(ctx)
	drained := n.Mail.Shutdown(ctx)
	return errors.Join(left, drained, n.Close())
}

// Close ends the node at once, without goodbye: to the others it has failed.
func (n *Node) Close() error {
	// The member first: what it said of itself would otherwise be withdrawn
	// piece by piece, which is a goodbye of a kind.
	err := n.Cluster.Close()
	return errors.Join(err, n.Cast.Close(), n.Mail.Close())
}
