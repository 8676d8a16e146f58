package test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/test/harness"
	"github.com/parley-mesh/parley/unicast"
)

// within is a context for one call that should take milliseconds.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A message for a node goes to that node, and what its handler says comes back.
func TestSendByName(t *testing.T) {
	nodes := harness.Start(t, 3, harness.Options{})
	node1, node2, node3 := nodes[0], nodes[1], nodes[2]

	if err := node1.Mail.Send(within(t), "node2", "greeting", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	m := node2.Mails()[0]
	if m.From != "node1" || m.Topic != "greeting" || string(m.Body) != "hello" {
		t.Errorf("node2 got %+v", m)
	}
	body := bytes.Repeat([]byte{0, 1, 2, 255}, 1<<18) // 1 MiB
	reply, err := node3.Mail.Request(within(t), "node1", "echo", body)
	if err != nil || !bytes.Equal(reply, body) {
		t.Errorf("reply of %d bytes, error %v", len(reply), err)
	}
	if err := node2.Mail.Push(within(t), "node3", "note", []byte("one way")); err != nil {
		t.Error(err)
	}
	harness.Eventually(t, 30*time.Second, func() bool { return len(node3.Mails()) == 1 }, "node3 gets the push")
	if err := node1.Mail.Send(within(t), "node1", "self", nil); err != nil {
		t.Errorf("to oneself: %v", err)
	}

	err = node1.Mail.Send(within(t), "node2", "fail", []byte("out of paper"))
	var remote *unicast.RemoteError
	if !errors.As(err, &remote) || remote.Text != "out of paper" || remote.Node != "node2" {
		t.Errorf("handler's error: %v", err)
	}

	for _, want := range []struct {
		node  *harness.Node
		mails int
	}{{node1, 2}, {node2, 2}, {node3, 1}} {
		if got := want.node.Mails(); len(got) != want.mails {
			t.Errorf("%s got %d messages, want %d: %+v", want.node.Name, len(got), want.mails, got)
		}
	}
}

// Who is not there is known here: the error comes without asking the network, says
// why, and the message has not been delivered.
func TestSendToWhoIsNotThere(t *testing.T) {
	nodes := harness.Start(t, 4, harness.Options{NoMailbox: func(node string) bool { return node == "node4" }})
	node1 := nodes[0]
	for _, name := range []string{"node2", "node3"} { // with links that are open already
		if err := node1.Mail.Send(within(t), name, "t", nil); err != nil {
			t.Fatal(err)
		}
	}
	nodes[1].Leave()
	nodes[2].Kill()
	harness.WaitStatus(t, node1, "node2", cluster.Left)
	harness.WaitStatus(t, node1, "node3", cluster.Failed)
	tests := []struct {
		node string
		want error
	}{
		{"nobody", cluster.ErrUnknownNode},
		{"node2", cluster.ErrLeft},
		{"node3", cluster.ErrFailed},
		{"node4", cluster.ErrNoService},
	}
	for _, tt := range tests {
		for op, call := range map[string]func() error{
			"push": func() error { return node1.Mail.Push(within(t), tt.node, "t", nil) },
			"send": func() error { return node1.Mail.Send(within(t), tt.node, "t", nil) },
			"request": func() error {
				_, err := node1.Mail.Request(within(t), tt.node, "t", nil)
				return err
			},
		} {
			err := call()
			var u *unicast.Error
			if !errors.Is(err, tt.want) || !errors.As(err, &u) || u.Node != tt.node || u.Op != op || u.Outcome != unicast.NotDelivered {
				t.Errorf("%s to %s: %v (%#v)", op, tt.node, err, u)
			}
		}
	}
}

// A node that comes back under its name elsewhere is found there, by those that
// had links to its old place and by those that had not.
func TestRestartElsewhere(t *testing.T) {
	nodes := harness.Start(t, 3, harness.Options{})
	node1, node2, node3 := nodes[0], nodes[1], nodes[2]
	if err := node1.Mail.Send(within(t), "node2", "t", []byte("before")); err != nil {
		t.Fatal(err)
	}
	old, err := node1.Cluster.Lookup("node2", unicast.ServiceRep)
	if err != nil {
		t.Fatal(err)
	}
	again := node2.Restart()
	harness.WaitConverged(t, node1, again, node3)
	now, err := node1.Cluster.Lookup("node2", unicast.ServiceRep)
	if err != nil || now.Instance == old.Instance {
		t.Fatalf("endpoint %+v, before %+v, error %v", now, old, err)
	}
	for _, n := range []*harness.Node{node1, node3} {
		if err := n.Mail.Send(within(t), "node2", "t", []byte("after")); err != nil {
			t.Error(err)
		}
	}
	if got := again.Mails(); len(got) != 2 {
		t.Errorf("it got %+v", got)
	}
	if got := node2.Mails(); len(got) != 1 {
		t.Errorf("its earlier life got %+v", got)
	}
	if err := again.Mail.Send(within(t), "node1", "t", nil); err != nil {
		t.Errorf("from its new place: %v", err)
	}
}
