package unicast

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// Config of a Messenger. The zero value is good. The nodes of a cluster should
// agree on MaxMessage: a node drops the connection on which it is sent more.
type Config struct {
	RepPort  int // TCP port of the endpoint for Send, Request and Ping; default 0: any free one
	PullPort int // TCP port of the endpoint for Push; default 0: any free one

	MaxMessage     int           // largest body of a message or reply, bytes; default 1 MiB, at most 16 MiB
	Timeout        time.Duration // for calls whose context has no deadline; default 10 s
	InFlight       int           // requests outstanding per node, and being handled per connection; default 256
	MaxConnections int           // connections made to others, in all; default 1024
	IdleTimeout    time.Duration // an unused connection is closed after it, and a quarter of it later at most; default 1 min
	QueueBytes     int           // per connection, with envelopes; default 8 MiB. Made by us: pushes accepted and not yet written. Made to us: requests being handled with their replies, of which a quarter may be replies not yet read; beyond it, it is not read

	Poll time.Duration // processor time for latency, see sp.Config.Poll; default 0: none

	Logger *slog.Logger // nil: slog.Default()
}

// reservedOverhead is how much more than MaxMessage the body of a message to a
// reserved topic may have, so that what frames a user's message of full size
// (a broadcast, say) fits.
const reservedOverhead = 1 << 10

// withDefaults returns c with its defaults filled in, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name  string
		value *int
		def   int
		max   int
	}{
		{"RepPort", &c.RepPort, 0, 65535},
		{"PullPort", &c.PullPort, 0, 65535},
		{"MaxMessage", &c.MaxMessage, 1 << 20, codec.MaxBody},
		{"InFlight", &c.InFlight, 256, 1 << 16},
		{"MaxConnections", &c.MaxConnections, 1024, 1 << 20},
		{"QueueBytes", &c.QueueBytes, 8 << 20, 1 << 30},
	} {
		if *f.value < 0 || *f.value > f.max {
			return c, fmt.Errorf("unicast: config: %s is %d, allowed are 0 (default %d) to %d", f.name, *f.value, f.def, f.max)
		}
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"Timeout", &c.Timeout, 10 * time.Second},
		{"IdleTimeout", &c.IdleTimeout, time.Minute},
		{"Poll", &c.Poll, 0},
	} {
		if *f.value < 0 {
			return c, fmt.Errorf("unicast: config: %s is %v, it cannot be negative", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// maxReserved is the largest body to a reserved topic.
func (c *Config) maxReserved() int { return min(c.MaxMessage+reservedOverhead, codec.MaxBody) }

// sp is the configuration of every socket.
func (c *Config) sp() sp.Config {
	return sp.Config{
		MaxMessage: max(c.maxReserved()+codec.EnvelopeOverhead, codec.ReplyOverhead),
		QueueBytes: c.QueueBytes,
		InFlight:   c.InFlight + 1, // a ping goes past those of users
		Poll:       c.Poll,
		Logger:     c.Logger,
	}
}
