package chaos

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Variables of the environment that the runs heed.
const (
	EnvTime = "PARLEY_TEST_CHAOS"      // how long each run takes, such as 60s
	EnvSeed = "PARLEY_TEST_CHAOS_SEED" // the seed of all chance, a number
)

// Time is how long a run takes: what the environment says, or short.
func Time(t testing.TB, short time.Duration) time.Duration {
	t.Helper()
	v := os.Getenv(EnvTime)
	if v == "" {
		return short
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%s is not a duration", EnvTime, v)
	}
	return d
}

// Seed is the seed of a run, from the environment or else a new one. The test's log,
// which is shown when it fails, tells it.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64() >> 1
	if v := os.Getenv(EnvSeed); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("%s=%s is not a number", EnvSeed, v)
		}
	}
	t.Logf("%s=%d", EnvSeed, seed)
	return seed
}

// Derive is the seed of one of the parts of a run.
func Derive(seed uint64, part string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(part))
	return seed ^ h.Sum64()
}

// maxSamples is how many times Times keeps.
const maxSamples = 1 << 16

// Times gathers times, a random choice of them when there are very many.
type Times struct {
	mu  sync.Mutex
	n   int
	max time.Duration
	all []time.Duration
}

// Add adds a time.
func (t *Times) Add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	t.max = max(t.max, d)
	if len(t.all) < maxSamples {
		t.all = append(t.all, d)
	} else if i := rand.IntN(t.n); i < maxSamples {
		t.all[i] = d
	}
}

// Quantile is the time that the share q of all does not exceed; 1 is the longest.
// The number of all comes with it.
func (t *Times) Quantile(q float64) (time.Duration, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == 0 {
		return 0, 0
	}
	if q >= 1 {
		return t.max, t.n
	}
	slices.Sort(t.all)
	return t.all[int(q*float64(len(t.all)))], t.n
}
