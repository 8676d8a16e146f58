package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/unicast"
)

// Members lists the nodes of the cluster, by name.
func (n *Node) Members(context.Context) ([]control.Member, error) {
	all := n.Cluster.Members()
	members := make([]control.Member, len(all))
	for i, m := range all {
		members[i] = n.member(m)
	}
	return members, nil
}

// Send returns nil when the other node's handler has returned nil.
func (n *Node) Send(ctx context.Context, to control.Target, body []byte) error {
	if err := n.await(ctx, "send", to, unicast.ServiceRep); err != nil {
		return err
	}
	if err := n.Mail.Send(ctx, to.Node, to.Topic, body); err != nil {
		return fault(ctx, "send", to, err)
	}
	return nil
}

// Request returns the other node's reply.
func (n *Node) Request(ctx context.Context, to control.Target, body []byte) ([]byte, error) {
	if err := n.await(ctx, "request", to, unicast.ServiceRep); err != nil {
		return nil, err
	}
	reply, err := n.Mail.Request(ctx, to.Node, to.Topic, body)
	if err != nil {
		return nil, fault(ctx, "request", to, err)
	}
	return reply, nil
}

// Push queues a message for the other node.
func (n *Node) Push(ctx context.Context, to control.Target, body []byte) error {
	if err := n.await(ctx, "push", to, unicast.ServicePull); err != nil {
		return err
	}
	if err := n.Mail.Push(ctx, to.Node, to.Topic, body); err != nil {
		return fault(ctx, "push", to, err)
	}
	return nil
}

// Ping measures a round trip over the overlay.
func (n *Node) Ping(ctx context.Context, to control.Target) (time.Duration, error) {
	if err := n.await(ctx, "ping", to, unicast.ServiceRep); err != nil {
		return 0, err
	}
	rtt, err := n.Mail.Ping(ctx, to.Node)
	if err != nil {
		return 0, fault(ctx, "ping", to, err)
	}
	return rtt, nil
}

// Broadcast sends to all nodes.
func (n *Node) Broadcast(ctx context.Context, topic string, reliable bool, body []byte) (control.Receipt, error) {
	to := control.Target{Topic: topic}
	if !reliable {
		if err := n.Cast.BestEffort(topic, body); err != nil {
			return control.Receipt{}, fault(ctx, "broadcast", to, err)
		}
		return control.Receipt{Members: len(n.Cluster.Recipients(unicast.ServiceRep))}, nil
	}
	receipt, err := n.Cast.Reliable(ctx, topic, body)
	var partial *broadcast.PartialError
	if err != nil && !errors.As(err, &partial) {
		return control.Receipt{}, fault(ctx, "broadcast", to, err)
	}
	r := control.Receipt{
		ID: receipt.ID.String(), Reliable: true,
		Members: len(receipt.Handled) + len(receipt.Written) + len(receipt.Failed),
		Handled: slices.Sorted(slices.Values(receipt.Handled)),
		Written: slices.Sorted(slices.Values(receipt.Written)),
	}
	if len(receipt.Failed) > 0 {
		r.Failed = make(map[string]control.Failure, len(receipt.Failed))
		for name, err := range receipt.Failed {
			r.Failed[name] = control.Failure{Error: reason(err), Outcome: outcomeOf(err)}
		}
	}
	return r, nil
}

// await parks until the node is there, when it is asked to.
func (n *Node) await(ctx context.Context, op string, to control.Target, service string) error {
	if !to.Wait {
		return nil
	}
	start := time.Now()
	err := n.Cluster.WaitForNode(ctx, to.Node, service)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		_, lookup := n.Cluster.Lookup(to.Node, service)
		next := "start it, or give --timeout more time"
		if near := similar(lookup); near != "" {
			next = "did you mean " + near + "? (" + next + ")"
		}
		return control.NewFault(control.CodeTimeout, control.NotDelivered, fmt.Sprintf(
			"%s to %s failed (%s): it was not there within %s; %s",
			op, printable(to.Node), control.NotDelivered, duration(time.Since(start)), next), err)
	}
	return fault(ctx, op, to, err)
}

func (n *Node) member(m cluster.Member) control.Member {
	services := make(map[string]string, len(m.Services))
	for name, e := range m.Services {
		services[name] = e.URL
	}
	tags := m.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	return control.Member{
		Name: m.Name, Addr: m.Addr, Status: string(m.Status), Tags: tags, Services: services,
		Instance: strconv.FormatUint(m.Instance, 16), Epoch: m.Epoch, Since: m.Since,
		Self: m.Instance == n.Cluster.Instance(),
	}
}

// printable is s as it may stand in a sentence on a terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || !strconv.IsPrint(r) }) || s == "" {
		return strconv.Quote(s)
	}
	return s
}

// duration is d with a precision that people read.
func duration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
