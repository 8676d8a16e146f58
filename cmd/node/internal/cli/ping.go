package cli

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) pingCommand() *cli.Command {
	return &cli.Command{
		Name: "ping", Category: "Messages", ArgsUsage: "NODE",
		Usage: "measure round trips to a node over the overlay",
		Description: `Each ping goes the way of a message, over the connection that messages use, and is
answered by the other node itself, whether somebody listens there or not. It goes
on until --count, or an interrupt. The exit code is 0 when at least one came back.`,
		CustomHelpTemplate: `
$ parley ping node2
$ parley ping node2 -c 5 -i 200ms
$ parley ping --join 10.0.0.5:7946 node2 -c 1`,
		Flags: mailFlags(
			integer("count", "c", "stop after `N` pings; 0: never", 0),
			period("interval", "i", "`TIME` between pings", time.Second),
			waitFlag(), jsonFlag()),
		BashComplete: p.completeNodes,
		Action:       p.verb("ping", 1, 1, (*call).ping),
	}
}

// pong is one ping, in JSON.
type pong struct {
	Node   string    `json:"node"`
	Seq    int       `json:"seq"`
	Time   time.Time `json:"time"`
	Millis float64   `json:"time_ms,omitempty"`
	Error  string    `json:"error,omitempty"`
}

func (c *call) ping() error {
	to, err := c.target()
	if err != nil {
		return err
	}
	count, interval, timeout := c.Int("count"), c.Duration("interval"), c.Duration("timeout")
	if count < 0 || interval <= 0 || timeout <= 0 {
		return usage("--count must be at least 0, --interval and --timeout more than nothing")
	}
	return c.interruptible(func(ctx context.Context) error {
		return c.mail(ctx, func(ctx context.Context, m control.Mail) error {
			if !c.Bool("json") {
				c.say("PING %s over the overlay", to.Node)
			}
			var stats pings
			start := time.Now()
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for seq := 1; ; seq++ {
				err := c.pingOnce(ctx, m, to, seq, timeout, &stats)
				if err != nil {
					return err
				}
				if count > 0 && seq == count {
					break
				}
				select {
				case <-tick.C:
					continue
				case <-ctx.Done():
				}
				break
			}
			if !c.Bool("json") {
				c.say("\n--- %s ping statistics ---\n%s, time %s", to.Node, stats.String(), short(time.Since(start)))
			}
			if stats.received == 0 {
				return stats.last
			}
			return nil
		})
	})
}

// pingOnce sends one ping. Its error is for what will not be better next time.
func (c *call) pingOnce(ctx context.Context, m control.Mail, to control.Target, seq int, timeout time.Duration, stats *pings) error {
	one, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rtt, err := m.Ping(one, to)
	if err != nil && ctx.Err() != nil { // interrupted
		stats.add(rtt, err)
		return nil
	}
	out := pong{Node: to.Node, Seq: seq, Time: time.Now(), Millis: millis(rtt)}
	stats.add(rtt, err)
	if err != nil {
		var f *control.Fault
		if stats.received == 0 && (!errors.As(err, &f) || f.Exit != control.ExitCode(control.CodeTimeout)) {
			return err
		}
		out.Error = err.Error()
	}
	switch {
	case c.Bool("json"):
		return c.line(out)
	case err != nil:
		c.say("%s: seq=%d %s", to.Node, seq, sentence(err.Error()))
	default:
		_, err = c.Stdout.Write([]byte(sprintf("reply from %s: seq=%d time=%s\n", to.Node, seq, short(rtt))))
		return err
	}
	return nil
}

// pings counts.
type pings struct {
	sent, received int
	min, max, sum  time.Duration
	squares        float64
	last           error
}

func (s *pings) add(rtt time.Duration, err error) {
	s.sent++
	if err != nil {
		s.last = err
		return
	}
	if s.received == 0 || rtt < s.min {
		s.min = rtt
	}
	s.received++
	s.max = max(s.max, rtt)
	s.sum += rtt
	s.squares += float64(rtt) * float64(rtt)
}

// String is the summary, as ping(8) has it.
func (s *pings) String() string {
	lost := 0.0
	if s.sent > 0 {
		lost = 100 * float64(s.sent-s.received) / float64(s.sent)
	}
	out := sprintf("%d sent, %d received, %.0f%% lost", s.sent, s.received, lost)
	if s.received > 0 {
		avg := s.sum / time.Duration(s.received)
		dev := time.Duration(math.Sqrt(max(0, s.squares/float64(s.received)-float64(avg)*float64(avg))))
		out += sprintf(", min/avg/max/mdev %s/%s/%s/%s", short(s.min), short(avg), short(s.max), short(dev))
	}
	return out
}
