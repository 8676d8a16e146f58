package unicast

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// Messenger sends messages to other nodes by name, and hands those that arrive
// to its Handler. Listen makes one; a node has one.
//
// All methods may be called concurrently. Every call returns within its context,
// or within Config.Timeout when that has no deadline; its error is an *Error.
// After Close or Shutdown began, calls fail with ErrClosed.
type Messenger struct {
	dir      Directory
	name     string
	instance uint64
	cfg      Config
	handler  Handler // nil: sends only
	log      *slog.Logger
	quiet    quiet

	seq      atomic.Uint64 // of the last message sent
	parser   *codec.Parser
	counters counters
	pool     *pool
	rep      *sp.Replier // nil: sends only, as pull
	pull     *sp.Puller
	own      own
	seen     seen
	handling atomic.Int64

	idleCalls sync.Pool // of *call

	reservedMu sync.RWMutex
	reserved   map[string]ReservedFunc

	ctx        context.Context // ends with Close, with cause ErrClosed
	cancel     context.CancelCauseFunc
	calls      gate // calls of Push, Send, Request, Ping in progress
	handlers   gate // messages that arrived and are being handled
	crew       crew // goroutines of its own, but for the pool's
	closing    sync.Once
	withdrawn  sync.Once
	advertised []string      // services, that withdraw takes back
	done       chan struct{} // closed when Close has finished
}

// Listen opens the endpoints on the Directory's BindHost, advertises them, and
// hands what arrives to h. With a nil Handler the Messenger only sends: it opens
// no endpoint and advertises nothing.
//
// Errors: a Config out of its bounds, an address in use, and those of
// Directory.Advertise; then nothing is left open.
func Listen(dir Directory, h Handler, cfg Config) (*Messenger, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Messenger{
		dir:      dir,
		name:     dir.Name(),
		instance: dir.Instance(),
		handler:  h,
		parser:   codec.NewParser(),
		reserved: make(map[string]ReservedFunc),
		done:     make(chan struct{}),
	}
	cfg.Logger = cfg.Logger.With(slog.String("node", m.name))
	m.cfg = cfg
	m.log = cfg.Logger
	m.quiet.log = cfg.Logger
	m.pool = newPool(dir, &m.cfg, &m.counters)
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	// The clock keeps ids unique when a node closes a Messenger and opens another.
	m.seq.Store(uint64(time.Now().UnixNano()))
	m.own.init(&m.cfg)

	if h != nil {
		if err := m.listen(); err != nil {
			m.Close()
			return nil, err
		}
		m.crew.start(func() { m.own.work(m) })
	} else {
		close(m.own.worked)
	}
	for _, service := range []string{ServiceRep, ServicePull} {
		m.crew.start(func() { m.pool.follow(m.ctx, service) })
	}
	return m, nil
}

func (m *Messenger) listen() (err error) {
	host := m.dir.BindHost()
	at := func(port int) string { return "tcp://" + net.JoinHostPort(host, strconv.Itoa(port)) }
	m.rep, err = sp.ListenReplier(at(m.cfg.RepPort), m.onRequest, m.cfg.sp())
	if err != nil {
		return fmt.Errorf("unicast: listen for requests at %s: %w", at(m.cfg.RepPort), err)
	}
	m.pull, err = sp.ListenPuller(at(m.cfg.PullPort), m.onPush, m.cfg.sp())
	if err != nil {
		return fmt.Errorf("unicast: listen for pushes at %s: %w", at(m.cfg.PullPort), err)
	}
	for _, e := range []struct{ service, url string }{{ServiceRep, m.rep.URL()}, {ServicePull, m.pull.URL()}} {
		u, err := url.Parse(e.url)
		if err == nil {
			err = m.dir.Advertise(e.service, ":"+u.Port())
		}
		if err != nil {
			return fmt.Errorf("unicast: advertise %s at %s: %w", e.service, e.url, err)
		}
		m.advertised = append(m.advertised, e.service)
	}
	return nil
}

func (m *Messenger) nextID() codec.ID { return codec.NewID(m.instance, m.seq.Add(1)) }
