package agent

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/parley-mesh/parley/unicast"
)

// Config of an Agent.
type Config struct {
	Cluster cluster.Config // what StartNode takes; Logger is required
	Mail    unicast.Config
	Socket  *control.Socket // the agent's, once Start has returned no error
	Output  io.Writer       // gets a line for each message that no listener takes
	Version string
}

// Agent is a Node that runs: it answers on its control socket, and gives what
// arrives to the listeners there.
type Agent struct {
	*Node
	hub     *Hub
	printer *printer
	server  *control.Server
	cfg     Config
	log     *slog.Logger
	started time.Time

	tagsMu sync.Mutex // one change of tags at a time

	ctx     context.Context // ends when the agent begins to stop
	cancel  context.CancelFunc
	stopped atomic.Bool   // or is stopping
	left    chan struct{} // closed when the node has ended
	done    chan struct{} // closed when everything has
	err     error         // why it ended; set before left is closed
}

var _ control.Agent = (*Agent)(nil)

// Start starts the node and answers on the control socket. The node has joined
// nobody yet, unless cfg.Cluster.RetryJoin says so.
func Start(cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, log: cfg.Cluster.Logger.With("node", cfg.Cluster.Name),
		started: time.Now(), left: make(chan struct{}), done: make(chan struct{}),
	}
	a.printer = newPrinter(cfg.Output, a.log)
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.hub = NewHub(a.printer.print)
	var err error
	a.Node, err = StartNode(NodeConfig{
		Cluster: cfg.Cluster, Mail: cfg.Mail,
		Messages:   unicast.HandlerFunc(a.hub.Handle),
		Broadcasts: broadcast.HandlerFunc(a.hub.HandleBroadcast),
	})
	if err != nil {
		a.cancel()
		a.printer.close()
		return nil, err
	}
	a.server = control.Serve(cfg.Socket, a, a.log)
	go func() { // ended by Stop, or when the node ends by itself
		select {
		case <-a.Cluster.Done():
			a.stop(context.Background(), true)
		case <-a.ctx.Done():
		}
	}()
	return a, nil
}

// Done is closed when the agent has ended: by Stop, by Leave over the control
// socket, or because its name was taken.
func (a *Agent) Done() <-chan struct{} { return a.done }

// Err says why, once Done is closed; nil after a clean leave.
func (a *Agent) Err() error {
	<-a.done
	return a.err
}

// Stop leaves the cluster and ends the agent: no new messages, those under way
// are answered, within ctx. It returns when everything has ended.
func (a *Agent) Stop(ctx context.Context) error {
	a.stop(ctx, false)
	return a.Err()
}

// stop ends everything, once. lost says that the node has ended already.
func (a *Agent) stop(ctx context.Context, lost bool) {
	if a.stopped.Swap(true) {
		return
	}
	defer close(a.done)
	a.cancel()
	a.hub.Hurry()
	if lost {
		a.err = a.Cluster.Err()
		_ = a.Node.Close()
	} else {
		a.err = a.Node.Leave(ctx) // listeners answer what they have
	}
	a.hub.Close()
	close(a.left)
	// The server is last, so that it can still tell whoever asked for this.
	if err := a.server.Close(); err != nil {
		a.log.Warn("control socket not closed cleanly", "err", err)
	}
	a.printer.close()
}

// leaveTime bounds a leave that was asked for over the control socket.
const leaveTime = 5 * time.Second

// Leave is Stop for a caller at the control socket: it returns when the node has
// left, and the agent ends soon after.
func (a *Agent) Leave(ctx context.Context) error {
	go func() { // ends by itself; Done tells when
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
		defer cancel()
		a.stop(ctx, false)
	}()
	select {
	case <-a.left:
	case <-ctx.Done():
		return control.NewFault(control.CodeTimeout, "", "the agent is still leaving; it ends within "+duration(leaveTime), ctx.Err())
	}
	if a.err != nil {
		return control.NewFault(control.CodeInternal, "", "the agent has ended, but its leave was not clean: "+a.err.Error(), a.err)
	}
	return nil
}

// Join contacts seeds and returns how many answered.
func (a *Agent) Join(ctx context.Context, seeds []string) (int, error) {
	n, err := a.Cluster.Join(ctx, seeds...)
	if err != nil {
		return n, joinFault(ctx, seeds, err)
	}
	return n, nil
}

// Tags changes the node's tags and returns all of them.
func (a *Agent) Tags(_ context.Context, change control.TagChange) (map[string]string, error) {
	a.tagsMu.Lock()
	defer a.tagsMu.Unlock()
	tags := a.tags()
	if len(change.Set) == 0 && len(change.Delete) == 0 {
		return tags, nil
	}
	for _, key := range change.Delete {
		if _, ok := tags[key]; !ok {
			return nil, control.NewFault(control.CodeUsage, "", "there is no tag "+printable(key)+" to delete; \"parley tags\" shows those there are", nil)
		}
		delete(tags, key)
	}
	maps.Copy(tags, change.Set)
	if err := a.Cluster.SetTags(tags); err != nil {
		return nil, tagFault(err)
	}
	return tags, nil
}

// ReplaceTags makes tags the node's only ones.
func (a *Agent) ReplaceTags(tags map[string]string) error {
	a.tagsMu.Lock()
	defer a.tagsMu.Unlock()
	if maps.Equal(tags, a.tags()) {
		return nil
	}
	return a.Cluster.SetTags(tags)
}

func (a *Agent) tags() map[string]string {
	me, _ := a.Cluster.Member(a.Cluster.Name())
	tags := maps.Clone(me.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	return tags
}

// Events yields the changes of the cluster.
func (a *Agent) Events(ctx context.Context) iter.Seq2[control.Event, error] {
	both, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.ctx, cancel)
	events := a.Cluster.Events(both)
	return func(yield func(control.Event, error) bool) {
		defer cancel()
		defer stop()
		for e := range events {
			out := control.Event{Type: string(e.Type), Time: e.Time, Lost: e.Lost}
			if e.Type != cluster.EventLagged {
				m := a.member(e.Member)
				out.Member = &m
			}
			if !yield(out, nil) {
				return
			}
		}
		if ctx.Err() == nil {
			yield(control.Event{}, stopping(errStopping))
		}
	}
}

// Listen attaches a listener.
func (a *Agent) Listen(ctx context.Context, opts control.ListenOptions) iter.Seq2[control.Record, error] {
	return a.hub.Listen(ctx, a.Cluster.Name(), opts)
}

// Answer takes a listener's answer. Nobody may wait for it any more; that is no error.
func (a *Agent) Answer(_ context.Context, session string, seq uint64, ans control.Answer) error {
	var err error
	if ans.Err != "" {
		err = errors.New(ans.Err)
	}
	a.hub.answer(session, seq, ans.Reply, err)
	return nil
}

// Info describes the agent.
func (a *Agent) Info(context.Context) (control.Info, error) {
	me, _ := a.Cluster.Member(a.Cluster.Name())
	m := a.member(me)
	profile := a.cfg.Cluster.Profile
	if profile == "" {
		profile = cluster.LAN
	}
	return control.Info{
		Name: m.Name, Cluster: a.cfg.Cluster.Cluster, Instance: m.Instance, Addr: a.Cluster.Addr(), Services: m.Services,
		Socket: a.cfg.Socket.Path, Profile: string(profile), Encrypted: len(a.cfg.Cluster.Key) > 0,
		Tags: m.Tags, PID: os.Getpid(), Started: a.started, Version: a.cfg.Version,
		Limits:    control.Limits{Message: control.MaxMessage, Gossip: broadcast.MaxGossip},
		Listeners: a.hub.size(),
		Stats: map[string]any{
			"cluster": snake(a.Cluster.Stats()), "unicast": snake(a.Mail.Stats()), "broadcast": snake(a.Cast.Stats()),
		},
	}, nil
}
