package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// fault turns the error of op into a sentence with an exit code: what was tried
// and on whom, what became of it, why, and what to do next.
func fault(ctx context.Context, op string, to control.Target, err error) *control.Fault {
	outcome := outcomeOf(err)
	code, why, next := explain(ctx, op, to, err)
	what := op
	if to.Node != "" {
		what += " to " + printable(to.Node)
	}
	if op == "ping" {
		// A ping carries nothing of the user's that could be delivered.
		return control.NewFault(code, "", fmt.Sprintf("%s failed: %s; %s", what, why, next), err)
	}
	return control.NewFault(code, outcome, fmt.Sprintf("%s failed (%s): %s; %s", what, outcome, why, next), err)
}

// outcomeOf is what is known about a message whose call returned err.
func outcomeOf(err error) string {
	var ue *unicast.Error
	if errors.As(err, &ue) {
		return ue.Outcome.String()
	}
	return control.NotDelivered
}

// explain classifies err: its code, why it happened, and what to do.
func explain(ctx context.Context, op string, to control.Target, err error) (code control.Code, why, next string) {
	var (
		remote *unicast.RemoteError
		limit  *codec.LimitError
		name   *codec.NameError
	)
	switch {
	case errors.As(err, &name):
		return control.CodeUsage, name.Error(), "see \"parley " + op + " --help\""
	case errors.Is(err, unicast.ErrReservedTopic), errors.Is(err, broadcast.ErrReservedTopic):
		return control.CodeUsage, reason(err), "choose another --topic"
	case errors.As(err, &limit):
		next = "send less, or in parts"
		if op == "broadcast" && limit.Limit < control.MaxMessage {
			next = "send less, or use --reliable, which takes up to " + fmt.Sprint(control.MaxMessage) + " bytes"
		}
		return control.CodeTooLarge, fmt.Sprintf("the %s has %d bytes and the limit is %d", limit.What, limit.Size, limit.Limit), next
	case errors.Is(err, cluster.ErrUnknownNode):
		next = "\"parley members\" lists the nodes, and --wait waits for one to join"
		if near := similar(err); near != "" {
			next = "did you mean " + near + "? (" + next + ")"
		}
		return control.CodeUnknownNode, "no node of that name is known here", next
	case errors.Is(err, cluster.ErrLeft):
		return control.CodeNodeLeft, "it left the cluster" + ago(err), "start it again, or wait for it with --wait"
	case errors.Is(err, cluster.ErrFailed):
		return control.CodeNodeFailed, "it has failed" + ago(err), "look at its machine and its log, or wait for it with --wait"
	case errors.Is(err, cluster.ErrNoService):
		return control.CodeNoService, "it is alive but takes no messages", "it may be starting (try --wait), or run without a mailbox; \"parley addr " + printable(to.Node) + "\" shows what it offers"
	case errors.Is(err, unicast.ErrNoListener):
		return control.CodeNoListener, fmt.Sprintf("no listener for topic %s there", printable(to.Topic)),
			"start one beside it with \"parley listen --exec COMMAND\", or choose another --topic"
	case errors.As(err, &remote) && !errors.Is(err, context.DeadlineExceeded):
		return control.CodeHandlerFailed, reason(remote), "what it did before it failed is in the log of " + printable(to.Node)
	case errors.Is(err, unicast.ErrWrongNode):
		return control.CodeRefused, "another node answered at its address", "wait until the cluster knows where it is now, and try again"
	case errors.Is(err, unicast.ErrBusy), errors.Is(err, cluster.ErrGossipBusy):
		if errors.Is(err, cluster.ErrGossipBusy) {
			return control.CodeBusy, "the cluster's gossip has no room for it now", "try again in a moment, or use --reliable, which does not go by gossip"
		}
		return control.CodeBusy, reason(err), "try again in a moment"
	case errors.As(err, &remote):
		return control.CodeTimeout, "its handler did not finish in time", "it may need a longer --timeout"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		if op == "ping" {
			return control.CodeTimeout, "there was no answer in time", "it may be stopped, busy or cut off; \"parley members\" tells when the cluster notices"
		}
		return control.CodeTimeout, "there was no answer in time", "\"parley ping\" tells whether it is reachable; its handler may need a longer --timeout"
	case errors.Is(err, context.Canceled):
		return control.CodeCanceled, "interrupted", "repeat it if it is still wanted"
	case errors.Is(err, cluster.ErrClosed), errors.Is(err, unicast.ErrClosed), errors.Is(err, broadcast.ErrClosed):
		return control.CodeUnreachable, "this agent is stopping", "\"parley agent\" starts it again"
	case errors.As(err, new(*unicast.Error)):
		return control.CodeNoReply, reason(err), "it may have just died or be cut off; \"parley members\" tells when the cluster notices"
	}
	return control.CodeInternal, err.Error(), "the agent's log may tell more"
}

// reason is the cause of err without the words that the sentence already has.
func reason(err error) string {
	var ue *unicast.Error
	if !errors.As(err, &ue) || ue.Err == nil {
		return err.Error()
	}
	s := ue.Err.Error()
	if ue.URL != "" {
		s = "at " + ue.URL + ": " + s
	}
	return s
}

// similar names the nodes that were probably meant.
func similar(err error) string {
	var lookup *cluster.LookupError
	if !errors.As(err, &lookup) {
		return ""
	}
	return strings.Join(lookup.Similar, " or ")
}

// ago tells for how long a node has been gone.
func ago(err error) string {
	var lookup *cluster.LookupError
	if errors.As(err, &lookup) && !lookup.Since.IsZero() {
		return " " + duration(time.Since(lookup.Since)) + " ago"
	}
	return ""
}

// joinFault explains why no seed let this node in.
func joinFault(ctx context.Context, seeds []string, err error) *control.Fault {
	var (
		join *cluster.JoinError
		addr *cluster.AddressError
	)
	what := "join via " + strings.Join(seeds, ", ") + " failed: "
	why := err.Error()
	if errors.As(err, &join) {
		texts := make([]string, len(join.Seeds))
		for i, s := range join.Seeds {
			texts[i] = s.Error()
		}
		why = strings.Join(texts, "; ")
	}
	code, next := control.CodeNoReply, "check the address, --cluster, and that a node runs there, or keep trying with \"parley agent --retry-join ADDRESS\""
	switch {
	case errors.As(err, &addr):
		code, next = control.CodeUsage, "write HOST:PORT, or HOST for port 7946"
	case errors.Is(err, cluster.ErrKeyMismatch):
		code, next = control.CodeRefused, "give both the same --key-file, or neither one"
	case errors.Is(err, cluster.ErrRefused):
		code, next = control.CodeRefused, "run the same version of parley on both"
	case errors.Is(err, cluster.ErrSelf):
		code, next = control.CodeUsage, "name another node"
	case errors.Is(err, cluster.ErrUnreachableFrom):
		code, next = control.CodeUsage, "start this node with a --bind or --advertise that the seed can reach"
	case errors.Is(err, cluster.ErrClosed):
		code, next = control.CodeUnreachable, "\"parley agent\" starts it again"
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		code, next = control.CodeCanceled, "repeat it if it is still wanted"
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		code = control.CodeTimeout
	}
	return control.NewFault(code, "", what+why+"; "+next, err)
}

// dialFault explains why a short-lived client could not join: nothing was sent.
func dialFault(ctx context.Context, seeds []string, err error) *control.Fault {
	f := joinFault(ctx, seeds, err)
	message := strings.Replace(f.Message, " failed: ", " failed ("+control.NotDelivered+"): ", 1)
	message = strings.TrimSuffix(message, ", or keep trying with \"parley agent --retry-join ADDRESS\"")
	return control.NewFault(f.Code, control.NotDelivered, message, err)
}

// tagFault explains why tags were not taken.
func tagFault(err error) *control.Fault {
	var limit *codec.LimitError
	if errors.As(err, &limit) {
		return control.NewFault(control.CodeTooLarge, "", fmt.Sprintf(
			"the tags do not fit: the %s would have %d bytes and the limit is %d; shorten them or delete some", limit.What, limit.Size, limit.Limit), err)
	}
	var name *codec.NameError
	if errors.As(err, &name) {
		return control.NewFault(control.CodeUsage, "", "the tags were not changed: "+name.Error(), err)
	}
	return control.NewFault(control.CodeInternal, "", "the tags were not changed: "+err.Error(), err)
}

// StartFault explains why a node or an agent did not start.
func StartFault(cfg cluster.Config, err error) *control.Fault {
	return startFault("the agent "+printable(cfg.Name)+" could not start: ", err)
}

// startFault begins its sentence with what.
func startFault(what string, err error) *control.Fault {
	var (
		live  *control.LiveError
		conf  *cluster.ConfigError
		taken *InUseError
	)
	switch {
	case errors.As(err, &live):
		return control.NewFault(control.CodeUsage, "", what+live.Error()+"; use it, stop it with \"parley leave\", or choose another --name", err)
	case errors.As(err, &conf):
		code, next := control.CodeUsage, ""
		if errors.As(err, new(*codec.LimitError)) {
			code, next = control.CodeTooLarge, "; shorten them or give fewer"
		}
		return control.NewFault(code, "", fmt.Sprintf("%s--%s: %v%s", what, flagOf(conf.Field), conf.Err, next), err)
	case errors.As(err, &taken):
		return control.NewFault(control.CodeUsage, "", fmt.Sprintf("%s%v; choose another %s, or stop what listens there", what, err, taken.What), err)
	}
	return control.NewFault(control.CodeInternal, "", what+err.Error(), err)
}

// flagOf is the flag that sets a field of cluster.Config.
func flagOf(field string) string {
	switch field {
	case "Tags":
		return "tag"
	case "RetryJoin":
		return "retry-join"
	case "DataDir":
		return "data-dir"
	case "MaxMembers":
		return "max-members"
	}
	return strings.ToLower(field)
}
