package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/unicast"
)

// Each way to fail gets its code, the outcome that the overlay reported, and a
// sentence with what was tried, on whom, and what to do.
func TestFaults(t *testing.T) {
	wrap := func(o unicast.Outcome, err error) error {
		return &unicast.Error{Op: "send", Node: "n2", URL: "tcp://10.0.0.2:4000", Outcome: o, Err: err}
	}
	lookup := func(l cluster.LookupError) error { l.Node = "n2"; return &l }
	for _, c := range []struct {
		name    string
		op      string
		err     error
		code    control.Code
		outcome string
		words   []string
	}{
		{"unknown", "send", wrap(unicast.NotDelivered, lookup(cluster.LookupError{Err: cluster.ErrUnknownNode, Similar: []string{"n1", "n3"}})),
			control.CodeUnknownNode, control.NotDelivered, []string{"send to n2 failed (NOT DELIVERED)", "did you mean n1 or n3?", "--wait"}},
		{"left", "send", wrap(unicast.NotDelivered, lookup(cluster.LookupError{Err: cluster.ErrLeft, Since: time.Now().Add(-time.Hour)})),
			control.CodeNodeLeft, control.NotDelivered, []string{"left", "1h0m0s ago"}},
		{"failed", "send", wrap(unicast.NotDelivered, lookup(cluster.LookupError{Err: cluster.ErrFailed, Since: time.Now()})),
			control.CodeNodeFailed, control.NotDelivered, []string{"has failed"}},
		{"failed during", "send", wrap(unicast.Unknown, cluster.ErrFailed), control.CodeNodeFailed, control.Unknown, []string{"UNKNOWN"}},
		{"no mailbox", "send", wrap(unicast.NotDelivered, lookup(cluster.LookupError{Err: cluster.ErrNoService, Service: "unicast-rep"})),
			control.CodeNoService, control.NotDelivered, []string{"parley addr n2"}},
		{"no listener", "request", wrap(unicast.NotDelivered, unicast.ErrNoListener), control.CodeNoListener, control.NotDelivered, []string{"no listener for topic t", "parley listen --exec"}},
		{"handler", "send", wrap(unicast.Handled, &unicast.RemoteError{Node: "n2", Text: "no such order"}), control.CodeHandlerFailed, control.HandlerFailed, []string{"no such order"}},
		{"handler's panic", "send", wrap(unicast.Handled, &unicast.RemoteError{Node: "n2", Text: "nil map", Panic: true}), control.CodeHandlerFailed, control.HandlerFailed, []string{"panicked: nil map"}},
		{"timeout", "request", wrap(unicast.Unknown, context.DeadlineExceeded), control.CodeTimeout, control.Unknown, []string{"UNKNOWN", "--timeout"}},
		{"too large", "send", wrap(unicast.NotDelivered, &codec.LimitError{What: "body", Size: 2 << 20, Limit: 1 << 20}), control.CodeTooLarge, control.NotDelivered, []string{"2097152", "1048576"}},
		{"too large for gossip", "broadcast", &codec.LimitError{What: "body", Size: 2000, Limit: 1024}, control.CodeTooLarge, control.NotDelivered, []string{"2000", "1024", "--reliable"}},
		{"busy", "send", wrap(unicast.NotDelivered, unicast.ErrBusy), control.CodeBusy, control.NotDelivered, []string{"again"}},
		{"gossip busy", "broadcast", cluster.ErrGossipBusy, control.CodeBusy, control.NotDelivered, []string{"--reliable"}},
		{"wrong node", "send", wrap(unicast.NotDelivered, unicast.ErrWrongNode), control.CodeRefused, control.NotDelivered, []string{"another node"}},
		{"refused connection", "send", wrap(unicast.NotDelivered, syscall.ECONNREFUSED), control.CodeNoReply, control.NotDelivered, []string{"tcp://10.0.0.2:4000", "connection refused"}},
		{"lost connection", "send", wrap(unicast.Unknown, errors.New("connection lost")), control.CodeNoReply, control.Unknown, []string{"connection lost"}},
		{"bad name", "send", wrap(unicast.NotDelivered, codec.ValidName("no/name")), control.CodeUsage, control.NotDelivered, []string{"no/name"}},
		{"reserved topic", "send", wrap(unicast.NotDelivered, unicast.ErrReservedTopic), control.CodeUsage, control.NotDelivered, []string{"--topic"}},
		{"reserved topic to all", "broadcast", broadcast.ErrReservedTopic, control.CodeUsage, control.NotDelivered, []string{"--topic"}},
		{"closed", "send", wrap(unicast.NotDelivered, unicast.ErrClosed), control.CodeUnreachable, control.NotDelivered, []string{"stopping"}},
		{"caller gone", "send", wrap(unicast.Unknown, context.Canceled), control.CodeCanceled, control.Unknown, []string{"interrupted"}},
		{"ping", "ping", wrap(unicast.Unknown, context.DeadlineExceeded), control.CodeTimeout, "", []string{"ping to n2 failed: "}},
		{"unheard of", "broadcast", os.ErrProcessDone, control.CodeInternal, control.NotDelivered, []string{"log"}},
	} {
		to := control.Target{Node: "n2", Topic: "t"}
		if c.op == "broadcast" {
			to.Node = ""
		}
		got := fault(t.Context(), c.op, to, c.err)
		if got.Code != c.code || got.Outcome != c.outcome || got.Exit != control.ExitCode(c.code) {
			t.Errorf("%s: code %s, exit %d, outcome %q", c.name, got.Code, got.Exit, got.Outcome)
		}
		if !errors.Is(got, c.err) {
			t.Errorf("%s: the cause is lost", c.name)
		}
		for _, w := range append(c.words, c.op, "; ") {
			if !strings.Contains(got.Message, w) {
				t.Errorf("%s: %q is not in %q", c.name, w, got.Message)
			}
		}
		if strings.Contains(got.Message, "\n") {
			t.Errorf("%s: more than one line: %q", c.name, got.Message)
		}
	}
}

func TestJoinFaults(t *testing.T) {
	seed := func(err error) error {
		return &cluster.JoinError{Seeds: []*cluster.SeedError{{Seed: "10.0.0.9:7946", Err: err}}}
	}
	for _, c := range []struct {
		err  error
		code control.Code
		word string
	}{
		{seed(syscall.ECONNREFUSED), control.CodeNoReply, "--retry-join"},
		{seed(context.DeadlineExceeded), control.CodeTimeout, "10.0.0.9:7946"},
		{seed(fmt.Errorf("answered but %w", cluster.ErrKeyMismatch)), control.CodeRefused, "--key-file"},
		{seed(cluster.ErrSelf), control.CodeUsage, "another node"},
		{seed(cluster.ErrUnreachableFrom), control.CodeUsage, "--bind"},
		{&cluster.AddressError{Addr: "a:b:c", Reason: "has too many colons"}, control.CodeUsage, "HOST:PORT"},
		{cluster.ErrClosed, control.CodeUnreachable, "agent"},
	} {
		got := joinFault(t.Context(), []string{"10.0.0.9:7946"}, c.err)
		if got.Code != c.code || !strings.Contains(got.Message, c.word) || !strings.HasPrefix(got.Message, "join via 10.0.0.9:7946 failed: ") {
			t.Errorf("%v: %s %q", c.err, got.Code, got.Message)
		}
	}
}
