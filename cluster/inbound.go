package cluster

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// Messages between nodes of this package begin with a version and a kind. Two
// bytes also keep memberlist from corrupting a packet: it counts the messages
// of one in a byte, and 255 of this size fill it.
const (
	frameVersion = 1
	frameHeader  = 2

	frameGossip  = 1 // from Gossip
	frameDirect  = 2 // from SendReliable
	frameGoodbye = 3 // instance, 8 bytes big endian, then the name
)

// How much waits for the consumer. More is dropped and counted, the newest
// first; a single message is taken whatever its size.
const (
	inboxMessages = 4096
	inboxBytes    = 4 << 20
)

func newFrame(kind byte, payload []byte) []byte {
	b := make([]byte, frameHeader+len(payload))
	b[0], b[1] = frameVersion, kind
	copy(b[frameHeader:], payload)
	return b
}

func goodbyeFrame(name string, instance uint64) []byte {
	payload := binary.BigEndian.AppendUint64(nil, instance)
	return newFrame(frameGoodbye, append(payload, name...))
}

// receive takes what another node sent. b is memberlist's: its buffer may be
// far larger than the message.
func (n *Node) receive(b []byte) {
	if len(b) <= frameHeader || b[0] != frameVersion {
		n.stats.malformed.Add(1)
		return
	}
	kind, payload := b[1], b[frameHeader:]
	switch kind {
	case frameGossip, frameDirect:
		n.deliver(payload)
	case frameGoodbye:
		if len(payload) < 8 || len(payload) > 8+maxName {
			n.stats.malformed.Add(1)
			return
		}
		n.sayGoodbye(string(payload[8:]), binary.BigEndian.Uint64(payload))
	default:
		n.stats.malformed.Add(1)
	}
}

// deliver queues a copy of payload for the consumer.
func (n *Node) deliver(payload []byte) {
	switch n.inbox.push(payload) {
	case inboxOff:
		n.stats.inboundIgnored.Add(1)
	case inboxFull:
		n.stats.inboundDropped.Add(1)
		n.warn("gossip dropped: the consumer is too slow", "messages", inboxMessages, "bytes", inboxBytes)
	}
}

// consumer is who was attached.
type consumer struct {
	receive func([]byte)
	state   func() []byte
	merge   func([]byte, bool)
	stop    chan struct{}
	done    chan struct{}
}

// AttachGossip sets the one consumer of gossip. receive is called on one
// goroutine, in order of arrival, with each payload that Gossip or SendReliable
// of another node sent, and owns its slice; when it is slow, up to 4,096
// messages or 4 MiB wait, and more are dropped and counted. state is called for
// each exchange of states with another node and returns up to 192 KiB for it;
// merge gets what the other side's state returned, unless that was nothing, and
// may keep the slice; fresh is true when it came with the first exchange of this
// node's life. state and merge may run concurrently with each other and with
// receive; both may be nil. None of the three may block or call Close, Leave or
// detach.
//
// detach ends it: when it returns, none of the three runs or will run. Closing
// the node does the same.
//
// Errors: ErrAttached, ErrClosed.
func (n *Node) AttachGossip(receive func(payload []byte), state func() []byte, merge func(state []byte, fresh bool)) (detach func(), err error) {
	c := &consumer{receive: receive, state: state, merge: merge, stop: make(chan struct{}), done: make(chan struct{})}
	in := n.inbox
	in.admin.Lock()
	defer in.admin.Unlock()
	if in.consumer != nil {
		return nil, fmt.Errorf("cluster: attach: %w", ErrAttached)
	}
	in.on.Store(true)
	if !n.spawn(func() { n.consume(c) }) {
		in.on.Store(false)
		return nil, n.closedError("attach")
	}
	in.set(c)
	return func() { n.detach(c) }, nil
}

// consume calls the consumer. detach ends it.
func (n *Node) consume(c *consumer) {
	defer close(c.done)
	for {
		payload, ok := n.inbox.pop()
		if !ok {
			select {
			case <-n.inbox.wake:
				continue
			case <-c.stop:
				return
			}
		}
		select {
		case <-c.stop:
			return
		default:
		}
		n.stats.gossipReceived.Add(1)
		c.receive(payload)
	}
}

// detach waits until c, or whoever is attached when c is nil, is in use no more.
func (n *Node) detach(c *consumer) {
	in := n.inbox
	in.admin.Lock()
	defer in.admin.Unlock()
	if c == nil {
		c = in.consumer
	}
	if c == nil || in.consumer != c {
		return
	}
	in.set(nil)
	in.on.Store(false)
	close(c.stop)
	<-c.done
	in.clear()
}

// inbox is the queue before the consumer.
type inbox struct {
	admin    sync.Mutex   // held while somebody attaches or detaches
	using    sync.RWMutex // held for reading while state or merge runs
	consumer *consumer    // written under both
	merging  sync.Mutex
	merged   bool // a state was; guarded by merging

	on   atomic.Bool
	wake chan struct{}

	mu    sync.Mutex
	queue [][]byte
	bytes int
}

type inboxResult int

const (
	inboxTaken inboxResult = iota
	inboxOff
	inboxFull
)

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// set waits until neither state nor merge runs.
func (in *inbox) set(c *consumer) {
	in.using.Lock()
	in.consumer = c
	in.using.Unlock()
}

func (in *inbox) push(payload []byte) inboxResult {
	if !in.on.Load() {
		return inboxOff
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) > 0 && (len(in.queue) >= inboxMessages || in.bytes+len(payload) > inboxBytes) {
		return inboxFull
	}
	in.queue = append(in.queue, append([]byte(nil), payload...))
	in.bytes += len(payload)
	select {
	case in.wake <- struct{}{}:
	default:
	}
	return inboxTaken
}

func (in *inbox) pop() ([]byte, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) == 0 {
		in.queue = nil // let go of a grown array
		return nil, false
	}
	payload := in.queue[0]
	in.queue[0] = nil
	in.queue = in.queue[1:]
	in.bytes -= len(payload)
	return payload, true
}

func (in *inbox) clear() {
	in.mu.Lock()
	in.queue, in.bytes = nil, 0
	in.mu.Unlock()
}

func (in *inbox) len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue)
}
