package cluster

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// Profile is a set of timings that fit a network.
type Profile string

const (
	LAN   Profile = "lan"   // one data centre: a failure is known in about 6 s
	WAN   Profile = "wan"   // long ways, lossy links: about 40 s
	Local Profile = "local" // loopback and tests: about 3 s
)

// profile is what a Profile means.
type profile struct {
	memberlist func() *memberlist.Config

	publishGap time.Duration // between two publications of the metadata, after the first few

	dial      time.Duration // bound of one exchange with a seed
	retryDial time.Duration // and of one in the background
	joinGrace time.Duration // how long Join waits for the other seeds once one has let it in

	rejoinMin time.Duration // first and last pause between two rounds of rejoin
	rejoinMax time.Duration
	recheck   time.Duration // how often seeds that are no members are looked at again
	asleep    time.Duration // a timer that is late by this much means that the process was stopped
}

// profiles starts from memberlist's own and changes what was measured to be
// better. No compression: metadata is small and binary, and LZW was most of the
// CPU of a big join. A deep handoff queue: the default of 1,024 overflows when
// some hundreds join at once. SuspicionMaxTimeoutMult 3: with several failures
// at once in a small cluster the default takes twice as long.
func profiles(p Profile) (profile, bool) {
	switch p {
	case LAN, "":
		return profile{
			memberlist: func() *memberlist.Config { return tuned(memberlist.DefaultLANConfig()) },
			publishGap: time.Second,
			dial:       5 * time.Second,
			retryDial:  2 * time.Second,
			joinGrace:  time.Second,
			rejoinMin:  500 * time.Millisecond,
			rejoinMax:  8 * time.Second, // with its jitter a heal takes 10 s at most
			recheck:    time.Minute,
			asleep:     5 * time.Second,
		}, true
	case WAN:
		return profile{
			memberlist: func() *memberlist.Config { return tuned(memberlist.DefaultWANConfig()) },
			publishGap: 2 * time.Second,
			dial:       15 * time.Second,
			retryDial:  8 * time.Second,
			joinGrace:  3 * time.Second,
			rejoinMin:  time.Second,
			rejoinMax:  20 * time.Second,
			recheck:    2 * time.Minute,
			asleep:     20 * time.Second,
		}, true
	case Local:
		return profile{
			memberlist: func() *memberlist.Config {
				// Not memberlist's own "local": that one halves the retransmissions,
				// which loses broadcasts, and its TCPTimeout of 1 s fails on a busy machine.
				c := tuned(memberlist.DefaultLANConfig())
				c.ProbeInterval = 500 * time.Millisecond
				c.ProbeTimeout = 300 * time.Millisecond
				c.SuspicionMaxTimeoutMult = 2
				c.AwarenessMaxMultiplier = 4 // a probe, and memberlist's end with it, takes at most 2 s
				c.GossipInterval = 100 * time.Millisecond
				c.GossipToTheDeadTime = 15 * time.Second
				c.PushPullInterval = 5 * time.Second
				return c
			},
			publishGap: 200 * time.Millisecond,
			dial:       5 * time.Second,
			retryDial:  time.Second,
			joinGrace:  500 * time.Millisecond,
			rejoinMin:  200 * time.Millisecond,
			rejoinMax:  2 * time.Second,
			recheck:    5 * time.Second,
			asleep:     3 * time.Second,
		}, true
	}
	return profile{}, false
}

func tuned(c *memberlist.Config) *memberlist.Config {
	c.EnableCompression = false
	c.HandoffQueueDepth = 8192
	c.SuspicionMaxTimeoutMult = 3
	c.DeadNodeReclaimTime = 30 * time.Second // of little use here, where no two starts share a name
	return c
}
