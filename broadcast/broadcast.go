package broadcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// Gossip is what a Broadcaster needs of the cluster; *cluster.Node satisfies it.
//
// What SendReliable writes arrives at the other node's receive, as gossip does.
type Gossip interface {
	Name() string
	Instance() uint64
	WaitForNode(ctx context.Context, node string, services ...string) error
	Gossip(payload []byte, relay bool) error
	AttachGossip(receive func([]byte), state func() []byte, merge func([]byte, bool)) (detach func(), err error)
	Recipients(service string) map[string]bool
	SendReliable(ctx context.Context, node string, payload []byte) error
}

// Sender is what a Broadcaster needs of the overlay; *unicast.Messenger
// satisfies it. The function given to Reserve owns the body it gets; Reserve
// with a nil function withdraws it.
type Sender interface {
	Reserve(topic string, fn func(ctx context.Context, from string, body []byte) ([]byte, error)) error
	SendReserved(ctx context.Context, node, topic string, body []byte) error
}

// Message is what a Handler gets.
type Message struct {
	ID codec.ID
	// From is the node that broadcast it: a claim, which any member could have made
	// by gossip, and by the overlay as long as its links are not authenticated.
	From  string
	Topic string
	Body  []byte // owned by the handler
	// Reliable says that it came by Reliable, not by BestEffort. On a node with a
	// mailbox it then came by the overlay, which acknowledges it, in the name that
	// the overlay has of its sender; on a node without one this is a claim too.
	Reliable bool
}

// Handler gets every broadcast of the other nodes, one at a time, in order of
// arrival. The error that it returns for a reliable message is reported to the
// sender; for a best-effort message it is logged and counted. A panic is
// recovered, logged with its stack and treated as an error.
//
// ctx ends when the Broadcaster is closed and, for a reliable message, when the
// sender no longer waits. A slow handler delays the messages behind it. A handler
// must not call Close, which waits for it; one that answers with a Reliable
// broadcast of its own should do so from another goroutine, since two nodes that
// both do it here would wait for each other until their contexts end.
type Handler interface {
	HandleBroadcast(ctx context.Context, m Message) error
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, m Message) error

// HandleBroadcast calls f.
func (f HandlerFunc) HandleBroadcast(ctx context.Context, m Message) error { return f(ctx, m) }

// Config of a Broadcaster. The zero value is good.
type Config struct {
	MaxMessage int          // largest body of Reliable, sent or accepted, in bytes; default 1 MiB, at most MaxMaxMessage
	MaxGossip  int          // largest body of BestEffort, in bytes; default and maximum 1 KiB
	Fanout     int          // sends of one Reliable call that are under way at once; default 32
	Logger     *slog.Logger // nil: slog.Default()
}

// Limits of the formats and the defaults.
const (
	DefaultMaxMessage = 1 << 20                                // bytes
	MaxMaxMessage     = codec.MaxBody - codec.EnvelopeOverhead // bytes; the overlay's envelope carries ours
	MaxGossip         = 1 << 10                                // bytes
	DefaultFanout     = 32
)

// What is wired, not chosen.
const (
	reliableTopic  = "$broadcast"  // the overlay's topic that carries reliable broadcasts
	mailboxService = "unicast-rep" // a member that advertises it can acknowledge
	seenIDs        = 8192          // message ids remembered, of each kind
)

func (c Config) withDefaults() (Config, error) {
	if c.MaxMessage == 0 {
		c.MaxMessage = DefaultMaxMessage
	}
	if c.MaxGossip == 0 {
		c.MaxGossip = MaxGossip
	}
	if c.Fanout == 0 {
		c.Fanout = DefaultFanout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case c.MaxMessage < 0 || c.MaxMessage > MaxMaxMessage:
		return c, fmt.Errorf("broadcast: MaxMessage is %d bytes, want 1 to %d", c.MaxMessage, MaxMaxMessage)
	case c.MaxGossip < 0 || c.MaxGossip > MaxGossip:
		return c, fmt.Errorf("broadcast: MaxGossip is %d bytes, want 1 to %d", c.MaxGossip, MaxGossip)
	case c.Fanout < 0:
		return c, fmt.Errorf("broadcast: Fanout is %d, want at least 1", c.Fanout)
	}
	return c, nil
}

// Broadcaster sends to every node and hands what the others send to its
// Handler. Its methods may be called concurrently.
type Broadcaster struct {
	gossip  Gossip
	sender  Sender  // nil: best effort only
	handler Handler // nil: sends and relays only
	cfg     Config
	log     *slog.Logger
	self    string
	inst    uint64
	opened  time.Time
	mailbox bool // reliable broadcasts come by acknowledged links, and only by them
	seq     atomic.Uint64

	ctx      context.Context // ends with Close, cause ErrClosed
	cancel   context.CancelCauseFunc
	detach   func() // nil until gossip is attached
	reserved bool   // the overlay's topic is ours

	queue *queue // to the worker; idle without a handler

	mu       sync.Mutex
	heard    window[struct{}] // ids of gossip seen
	answered window[*outcome] // ids of reliable messages taken, and what became of them
	recent   recent           // gossip offered to others in push/pull

	lifeMu  sync.Mutex
	closed  bool
	running sync.WaitGroup // the worker, Reliable calls and reliable messages being answered
	done    chan struct{}  // closed when Close has finished

	count    counters
	badLog   occasional
	dropLog  occasional
	relayLog occasional
	errorLog occasional
}

// Open starts a Broadcaster on a node. A nil Sender makes one whose Reliable
// fails with ErrNoSender; a nil Handler makes one that only sends, and relays
// gossip for the others: reliable broadcasts of other nodes fail there for want
// of a listener.
//
// Open it before the node joins, so that nobody sees the node without it. Whether
// the node has a mailbox is decided here, by what it advertises: then reliable
// broadcasts are taken from the overlay's acknowledged links, and those that come
// by gossip are refused and counted as malformed. Open fails when the configuration is out of range, or when another Broadcaster is
// open on the same node.
func Open(g Gossip, s Sender, h Handler, cfg Config) (*Broadcaster, error) {
	if g == nil {
		return nil, errors.New("broadcast: open: no Gossip given")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Broadcaster{
		gossip: g, sender: s, handler: h, cfg: cfg,
		self: g.Name(), inst: g.Instance(), opened: time.Now(),
		mailbox:  s != nil && h != nil && offersMailbox(g),
		queue:    newQueue(maxQueued, max(maxQueuedBytes, cfg.MaxMessage), maxWaiting),
		heard:    newWindow[struct{}](seenIDs),
		answered: newWindow[*outcome](seenIDs),
		done:     make(chan struct{}),
	}
	b.log = cfg.Logger.With("node", b.self, "service", "broadcast")
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	// The others remember this instance's ids. A Broadcaster that is opened on
	// the same node after this one must not use them again, so the sequence
	// starts at the clock.
	b.seq.Store(uint64(b.opened.UnixNano()))

	if h != nil {
		b.running.Go(b.work) // ended by queue.close, waited for in Close
	}
	if b.detach, err = g.AttachGossip(b.receive, b.state, b.merge); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("broadcast: open on %s: %w", b.self, err)
	}
	if s != nil && h != nil {
		if err = s.Reserve(reliableTopic, b.accept); err != nil {
			_ = b.Close()
			return nil, fmt.Errorf("broadcast: open on %s: %w", b.self, err)
		}
		b.reserved = true
	}
	return b, nil
}

// offersMailbox reports whether the other nodes find a mailbox here, now. A Sender
// may be one that only sends.
func offersMailbox(g Gossip) bool {
	over, cancel := context.WithCancel(context.Background())
	cancel() // ask, do not wait
	return g.WaitForNode(over, g.Name(), mailboxService) == nil
}

// Close stops it: nothing more is sent, received or relayed here, Reliable
// calls under way end with ErrClosed for the members that have not answered,
// messages that wait for the handler are refused (reliable) or dropped, and the
// handler's context ends. Close returns when the handler has returned and all
// goroutines are gone. Calling it again waits for the same and returns nil.
func (b *Broadcaster) Close() error {
	b.lifeMu.Lock()
	first := !b.closed
	b.closed = true
	b.lifeMu.Unlock()
	if !first {
		<-b.done
		return nil
	}
	defer close(b.done)
	b.cancel(ErrClosed)
	for _, j := range b.queue.close() {
		b.refuse(j, errClosing)
	}
	if b.detach != nil {
		b.detach()
	}
	b.running.Wait()
	if b.reserved {
		// After the wait: until here the others are told that we are closing.
		_ = b.sender.Reserve(reliableTopic, nil)
	}
	return nil
}

// begin counts the caller among those that Close waits for, unless it is closed.
func (b *Broadcaster) begin() bool {
	b.lifeMu.Lock()
	defer b.lifeMu.Unlock()
	if b.closed {
		return false
	}
	b.running.Add(1)
	return true
}

func (b *Broadcaster) nextID() codec.ID { return codec.NewID(b.inst, b.seq.Add(1)) }
