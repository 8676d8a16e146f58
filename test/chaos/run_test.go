package chaos_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
	"github.com/parley-mesh/parley/test/chaos"
)

// short is how long a run takes in "go test ./...".
const short = 2 * time.Second

// socketBuffer is the Proxy's, each way, on each of its sockets. The system takes
// twice as much.
const socketBuffer = 256 << 10

// run is what the lanes of a test have in common: an end, which comes when the
// time is over and enough has happened.
type run struct {
	t       *testing.T
	seed    uint64
	h       *chaos.History
	began   time.Time
	enough  atomic.Bool
	aborted atomic.Bool
	orderly atomic.Int64 // connections that nobody cut, with something to check
	late    chaos.Times  // how much later than their contexts, or their connection, calls returned

	mu      sync.Mutex
	proxies []*chaos.Proxy
}

func newRun(t *testing.T, rules chaos.Rules) *run {
	return &run{t: t, seed: chaos.Seed(t), h: chaos.NewHistory(rules), began: time.Now()}
}

// listen starts a proxy whose faults count for this run.
func (r *run) listen(name string, cfg chaos.Config) *chaos.Proxy {
	cfg.Seed = chaos.Derive(r.seed, name)
	p := listen(r.t, cfg)
	r.mu.Lock()
	r.proxies = append(r.proxies, p)
	r.mu.Unlock()
	return p
}

func (r *run) counts() (sum chaos.Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.proxies {
		sum = sum.Add(p.Counts())
	}
	return sum
}

// floor is what must have happened for a run to prove anything.
type floor struct {
	cuts, resets, halfCloses, blackHoles int64 // of each
	splits, delays, stalls               int64
	orderly                              int64 // connections that nobody cut
	handled                              int   // messages
}

func (r *run) reached(f floor) bool {
	c, t := r.counts(), r.h.Tally()
	return r.orderly.Load() >= f.orderly && c.Cuts >= f.cuts && c.Resets >= f.resets && c.HalfCloses >= f.halfCloses && c.BlackHoles >= f.blackHoles &&
		c.Splits >= f.splits && c.Delays >= f.delays && c.Stalls >= f.stalls && t.Handled >= f.handled
}

// watch ends the run when its time is over and the floor is reached, or when
// something is wrong already.
func (r *run) watch(f floor) {
	end := r.began.Add(chaos.Time(r.t, short))
	for !r.over() {
		now := time.Now()
		reached := r.reached(f)
		switch {
		case len(r.h.Violations()) > 0:
			r.enough.Store(true)
		case now.After(end) && reached:
			r.enough.Store(true)
		case now.After(end.Add(2 * time.Minute)):
			r.t.Errorf("not enough has happened: %v; %v", r.counts(), r.h.Tally())
			r.enough.Store(true)
		default:
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (r *run) over() bool { return r.enough.Load() || r.aborted.Load() }

// abort says what went on without end.
func (r *run) abort(format string, args ...any) {
	r.h.Violation(format, args...)
	r.aborted.Store(true)
}

// eventually is the other one, for goroutines that are not the test's.
func (r *run) eventually(what string, ok func() bool) bool {
	for end := time.Now().Add(patience); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			r.abort("not within %v: %s", patience, what)
			return false
		}
	}
	return true
}

// wait waits for a group of calls that have no reason to go on. When they do, it
// says where they are and ends the run without them.
func (r *run) wait(what string, wg *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(patience):
	}
	stacks := make([]byte, 1<<20)
	r.t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
	r.abort("not within %v: %s", patience, what)
	return false
}

// anyPort is an address to listen at, as cfg wants it.
func anyPort(cfg sp.Config) string {
	if cfg.TLS != nil {
		return "tls+tcp://127.0.0.1:0"
	}
	return "tcp://127.0.0.1:0"
}

// target is the address of url for a Proxy, and by what URL to reach what listens
// there through the Proxy at addr.
func target(url string) string   { return url[strings.Index(url, "://")+len("://"):] }
func by(addr, url string) string { return strings.TrimSuffix(url, target(url)) + addr }

// secret is a TLS configuration for both sides.
func secret(t testing.TB) *tls.Config {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: roots}
}

// kept is one message that was given for good, to see whether it stays as it is.
type kept struct {
	r    *run
	mu   sync.Mutex
	body []byte
	m    chaos.Message
}

// swap checks the body that it kept, and keeps another.
func (k *kept) swap(body []byte, m chaos.Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body != nil {
		if again, err := chaos.Parse(k.body); err != nil || again != k.m {
			k.r.h.Violation("a body that was given for good changed: %+v became %+v, %v", k.m, again, err)
		}
	}
	k.body, k.m = body, m
}

// maxLate bounds how late a call may return on a machine that is busy with other things.
const maxLate = 10 * time.Second

// report checks what a run has found, and says how it went.
func (r *run) report() {
	r.t.Helper()
	r.h.Check(r.t)
	p50, _ := r.late.Quantile(0.5)
	p99, n := r.late.Quantile(0.99)
	longest, _ := r.late.Quantile(1)
	r.t.Logf("in %v: %v", time.Since(r.began).Round(time.Millisecond), r.counts())
	r.t.Logf("%v", r.h.Tally())
	r.t.Logf("after their context or connection ended, %d calls returned within %v at the median, %v at 99%%, %v at most", n, p50, p99, longest)
	if longest > maxLate {
		r.t.Errorf("a call returned %v after its context or connection had ended", longest)
	}
}

// chance is the source of one purpose of this run.
func (r *run) chance(purpose string, args ...any) *rand.Rand {
	return rand.New(rand.NewPCG(chaos.Derive(r.seed, fmt.Sprintf(purpose, args...)), 1))
}

// size is the size of a message: most are small, few have hundreds of kilobytes.
func size(rnd *rand.Rand) int {
	top := 12.0
	switch rnd.IntN(100) {
	case 0:
		top = 18.3
	case 1, 2, 3, 4, 5:
		top = 16
	}
	return int(math.Exp2(5 + rnd.Float64()*(top-5)))
}

// limit is a context that ends soon, once in soon times (never if that is 0), and
// otherwise not while anyone waits. done must be called when the call has returned; it says how late that was.
func (r *run) limit(rnd *rand.Rand, soon int) (ctx context.Context, done func()) {
	if soon == 0 || rnd.IntN(soon) != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		return ctx, cancel
	}
	d := time.Duration(rnd.Int64N(int64(8 * time.Millisecond)))
	var at atomic.Int64 // when it ended
	var cancel context.CancelFunc
	if rnd.IntN(2) == 0 {
		ctx, cancel = context.WithTimeout(context.Background(), d)
	} else {
		ctx, cancel = context.WithCancel(context.Background())
		timer := time.AfterFunc(d, cancel)
		old := cancel
		cancel = func() { timer.Stop(); old() }
	}
	stop := context.AfterFunc(ctx, func() { at.Store(time.Now().UnixNano()) })
	return ctx, func() {
		now := time.Now()
		stop()
		if ended := at.Load(); ended != 0 {
			r.late.Add(max(0, now.Sub(time.Unix(0, ended))))
		}
		cancel()
	}
}

// refusal checks an error that says that nothing was sent.
func (r *run) refusal(err error) {
	switch {
	case !errors.Is(err, sp.ErrNotSent):
		r.h.Violation("an error that does not match ErrNotSent: %v", err)
	case errors.Is(err, sp.ErrConnectionLost):
		r.h.Violation("an error that matches ErrNotSent and ErrConnectionLost: %v", err)
	}
}

// sound checks the counters of an endpoint: whatever happens to connections, all that
// comes over them is the beginning of what an honest peer said.
func (r *run) sound(what string, st sp.Stats) {
	if st.TooLarge != 0 || st.Malformed != 0 || st.Stall != 0 {
		r.h.Violation("%s: received what nobody has sent: %+v", what, st)
	}
}

// ended reports whether a channel is closed.
func ended(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// held is how many bytes of ours the sockets between a sender and a Proxy's target can
// hold, the Proxy included; 0 where the system does not let us bound that.
func held() int {
	if runtime.GOOS != "linux" {
		return 0
	}
	const unsent = 512 << 10 // what a sender's socket takes beyond what the Proxy's has room for; see package sp
	const packet = 64 << 10  // by which the system may exceed each
	return unsent + 2*2*socketBuffer + chaos.PieceSize + 5*packet
}
