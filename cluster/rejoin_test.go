package cluster

import (
	"testing"
	"time"
)

// TestRejoinUnderNews: news of failures hasten the next round and never put it off.
func TestRejoinUnderNews(t *testing.T) {
	t.Parallel()
	n := start(t, "a", func(c *Config) { c.RetryJoin = []string{"127.0.0.1:1"} })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	eventually(t, "three rounds were made", func() bool {
		<-tick.C
		n.wakeRejoin()
		return n.Stats().RejoinAttempts >= 3
	})
}
