package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// targetSpec is what a target is. Its fields are those of sp.Config, but for the
// first two and the last two.
type targetSpec struct {
	Puller           bool // else a Replier, which says the request again
	TLS              bool
	MaxMessage       int
	QueueBytes       int
	TotalBytes       int
	InFlight         int
	MaxPipes         int
	MaxPending       int
	HandshakeTimeout time.Duration
	StallTimeout     time.Duration
	ReplySize        int // Replier: replies have this size, but for an asker's
	FreeFiles        int // it may open only so many descriptors more
}

// report is what a target says of itself.
type report struct {
	Stats      sp.Stats
	Goroutines int
	Files      int           // open descriptors; -1 where they cannot be counted
	Heap       int64         // bytes of objects; after settle those alive
	Stack      int64         // bytes
	Allocated  int64         // bytes, since the process began
	RSS        int64         // bytes; -1 where it is not known
	CPU        time.Duration // since the process began; -1 where it is not known
	Age        time.Duration // of the listener
	Lines      map[string]int
}

// Commands to a target. It answers each with a report.
const (
	cmdLook   = "look"   // as things are
	cmdSettle = "settle" // after the garbage was collected
)

// hello is the first line of either process; Error says why there are no more.
type hello struct {
	URL   string
	Cert  []byte // of a target with TLS
	Error string
}

// runTarget lives until standard input ends, as it does when the test is over or
// was killed.
func runTarget(spec targetSpec) error {
	sys := openSystem()
	lines := &lineCounter{lines: make(map[string]int)}
	cfg := sp.Config{
		MaxMessage: spec.MaxMessage, QueueBytes: spec.QueueBytes, TotalBytes: spec.TotalBytes, InFlight: spec.InFlight,
		MaxPipes: spec.MaxPipes, MaxPending: spec.MaxPending,
		HandshakeTimeout: spec.HandshakeTimeout, StallTimeout: spec.StallTimeout,
		Logger: slog.New(lines),
	}
	var first hello
	url := "tcp://127.0.0.1:0"
	if spec.TLS {
		cert, err := newCertificate()
		if err != nil {
			return err
		}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		first.Cert = cert.Certificate[0]
		url = "tls+" + url
	}
	srv, err := listen(url, spec, cfg)
	if err != nil {
		return err
	}
	first.URL = srv.URL()
	began := time.Now()
	answers := json.NewEncoder(os.Stdout)
	if spec.FreeFiles > 0 {
		if err := sys.limitFiles(spec.FreeFiles); err != nil {
			first.Error = err.Error()
		}
	}
	if err := answers.Encode(first); err != nil {
		return err
	}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		if commands.Text() == cmdSettle {
			for range 3 { // pools keep what they have for two
				runtime.GC()
			}
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		err := answers.Encode(report{
			Stats: srv.Stats(), Goroutines: runtime.NumGoroutine(), Files: sys.files(),
			Heap: int64(m.HeapAlloc), Stack: int64(m.StackInuse), Allocated: int64(m.TotalAlloc), RSS: sys.rss(),
			CPU: sys.cpu(), Age: time.Since(began), Lines: lines.snapshot(),
		})
		if err != nil {
			return err
		}
	}
	return srv.Close()
}

type server interface {
	URL() string
	Stats() sp.Stats
	Close() error
}

func listen(url string, spec targetSpec, cfg sp.Config) (server, error) {
	if spec.Puller {
		return sp.ListenPuller(url, func(context.Context, sp.Inbound) {}, cfg)
	}
	return sp.ListenReplier(url, func(_ context.Context, in sp.Inbound) []byte {
		if spec.ReplySize > 0 && len(in.Body) != probeSize {
			return make([]byte, spec.ReplySize)
		}
		return bytes.Clone(in.Body)
	}, cfg)
}

// newCertificate makes a certificate that signs itself.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// clientTLS trusts that certificate alone.
func clientTLS(cert []byte) (*tls.Config, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return &tls.Config{RootCAs: pool}, nil
}

// lineCounter is a log of which only the number of lines of each kind is kept.
type lineCounter struct {
	mu    sync.Mutex
	lines map[string]int
}

func (*lineCounter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler         { return c }
func (c *lineCounter) WithGroup(string) slog.Handler              { return c }

func (c *lineCounter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[r.Message]++
	return nil
}

func (c *lineCounter) snapshot() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := make(map[string]int, len(c.lines))
	for what, n := range c.lines {
		lines[what] = n
	}
	return lines
}

// probeSize is the length of an asker's requests.
const probeSize = 64

// latencies is what an asker has seen.
type latencies struct {
	Requests, Failed int
	P50, P99, Max    time.Duration
	Error            string // of the last that failed
}

func (l latencies) String() string {
	return fmt.Sprintf("%d requests, p50 %v, p99 %v, max %v", l.Requests, l.P50, l.P99, l.Max)
}

// Commands to an asker, which answers each with what it saw since the last.
const cmdTell = "tell"

// runAsker asks a target about a thousand times a second, and tells how long it took.
func runAsker(of hello) error {
	var cfg sp.Config
	if of.Cert != nil {
		var err error
		if cfg.TLS, err = clientTLS(of.Cert); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	req, err := sp.DialRequester(ctx, of.URL, cfg)
	cancel()
	if err != nil {
		return err
	}
	defer req.Close()
	var (
		mu    sync.Mutex
		took  []time.Duration
		fails int
		last  string
		stop  atomic.Bool
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		body := make([]byte, probeSize)
		for !stop.Load() {
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			began := time.Now()
			_, err := req.Request(ctx, body)
			d := time.Since(began)
			cancel()
			mu.Lock()
			if took = append(took, d); err != nil {
				fails++
				last = err.Error()
			}
			mu.Unlock()
			time.Sleep(time.Millisecond) // it is its pace
		}
	})
	defer wg.Wait()
	defer stop.Store(true)

	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(hello{URL: of.URL}); err != nil {
		return err
	}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		mu.Lock()
		l := summary(took)
		l.Failed, l.Error = fails, last
		took, fails, last = took[:0], 0, ""
		mu.Unlock()
		if err := answers.Encode(l); err != nil {
			return err
		}
	}
	return nil
}
