package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

// Client is a member for the time of one call: others do not list it, count on
// it, or broadcast to it.
type Client struct {
	*Node
	seeds []string
}

var _ control.Mail = (*Client)(nil)

// ClientConfig says how a Client joins.
type ClientConfig struct {
	Seeds   []string
	Cluster string
	Key     []byte
	Profile cluster.Profile
	Logger  *slog.Logger
}

// How long a Client takes for what is not the call itself.
const (
	knowTime  = 500 * time.Millisecond // until the target is known, when nobody asked to wait
	flushTime = 2 * time.Second        // for a best-effort broadcast to be gossiped
	leaveFast = 500 * time.Millisecond // to say goodbye
)

// Dial makes a Client and joins, within ctx. Its errors are *control.Faults.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	bind, advertise := localAddr(ctx, cfg.Seeds[0])
	member := cluster.Config{
		Name:    "cli-" + strings.ToLower(rand.Text()[:10]),
		Cluster: cfg.Cluster, Bind: bind, Advertise: advertise, Profile: cfg.Profile, Key: cfg.Key, Observer: true, Logger: cfg.Logger,
	}
	n, err := StartNode(NodeConfig{Cluster: member})
	if err != nil {
		return nil, startFault("cannot join for this call ("+control.NotDelivered+"): ", err)
	}
	if _, err := n.Cluster.Join(ctx, cfg.Seeds...); err != nil {
		_ = n.Close()
		return nil, dialFault(ctx, cfg.Seeds, err)
	}
	return &Client{Node: n, seeds: cfg.Seeds}, nil
}

// localAddr is where a client listens that talks to seed: on loopback if the
// seed is there, else on all interfaces, known under the address that is used to
// get there.
func localAddr(ctx context.Context, seed string) (bind, advertise string) {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		host, port = strings.Trim(seed, "[]"), strconv.Itoa(cluster.DefaultPort)
	}
	// Connecting a UDP socket sends nothing; it asks the kernel for the way.
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(host, port))
	if err != nil {
		return "0.0.0.0:0", ""
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return "0.0.0.0:0", ""
	}
	ip := local.Addr().Unmap()
	switch {
	case ip.IsLoopback():
		return net.JoinHostPort(ip.String(), "0"), ""
	case ip.Is4():
		return "0.0.0.0:0", ip.String()
	}
	return "[::]:0", ip.WithZone("").String()
}

// Close leaves quickly: what was pushed is written, what was broadcast gossiped.
func (c *Client) Close(ctx context.Context) error {
	err := c.Mail.Shutdown(ctx)
	fast, cancel := context.WithTimeout(ctx, leaveFast)
	defer cancel()
	// An observer that does not manage to say goodbye is forgotten all the same.
	_ = c.Cluster.Leave(fast)
	return errors.Join(err, c.Node.Close())
}

// Send waits for the target to be known, then sends; so do the others.
func (c *Client) Send(ctx context.Context, to control.Target, body []byte) error {
	c.know(ctx, to)
	return c.Node.Send(ctx, to, body)
}

// Request is like Send.
func (c *Client) Request(ctx context.Context, to control.Target, body []byte) ([]byte, error) {
	c.know(ctx, to)
	return c.Node.Request(ctx, to, body)
}

// Push is like Send.
func (c *Client) Push(ctx context.Context, to control.Target, body []byte) error {
	c.know(ctx, to)
	return c.Node.Push(ctx, to, body)
}

// Ping is like Send.
func (c *Client) Ping(ctx context.Context, to control.Target) (time.Duration, error) {
	c.know(ctx, to)
	return c.Node.Ping(ctx, to)
}

// Broadcast waits until gossip has carried a best-effort one away.
func (c *Client) Broadcast(ctx context.Context, topic string, reliable bool, body []byte) (control.Receipt, error) {
	r, err := c.Node.Broadcast(ctx, topic, reliable, body)
	if err != nil || reliable {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for c.Cluster.Stats().GossipQueued > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r, nil // it was told to some by now
		}
	}
	return r, nil
}

// know waits a moment for a target that nobody has named yet: a seed that has
// just started may learn of it while we ask. What becomes of it, the call tells.
func (c *Client) know(ctx context.Context, to control.Target) {
	if _, ok := c.Cluster.Member(to.Node); ok || to.Wait {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, knowTime)
	defer cancel()
	_ = c.Cluster.WaitForNode(ctx, to.Node)
}
