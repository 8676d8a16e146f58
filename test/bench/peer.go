package main

import (
	"encoding/binary"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// kind is what a pair of processes does with its messages.
type kind string

const (
	requests kind = "requests" // each message is answered with a copy of itself
	oneWay   kind = "oneway"   // messages are counted at the receiver
)

// callers is how many requests are outstanding in the test of many requests.
const callers = 64

// task is what a process is told to do.
type task struct {
	peer        string
	kind        kind
	size        int // of a message's body, bytes
	outstanding int // requests; 1 or callers
	nodes       int // of the cluster, for peers that have one
	helper      string
	receiver    string // address, for the sender
}

// A peer is one way to carry messages from one process to another.
type peer interface {
	// receive listens, answers requests and counts one-way messages in s until the
	// process ends. It returns the address for the task of the sender.
	receive(t task, s *sink) (addr string, err error)
	// connect connects to t.receiver.
	connect(t task) (sender, error)
}

// A helper is a peer that needs a third process: a broker, or further nodes.
type helper interface {
	help(t task) (addr string, err error)
}

// A sender is the sending end of a connection.
type sender interface {
	// caller returns a function that makes a round trip. Each function is used by
	// one goroutine, and many functions at once.
	caller() (roundTrip, error)
	// push sends body one way. It is used by one goroutine.
	push(body []byte) error
	// flush sends out what push has kept back.
	flush() error
	close()
}

// A roundTrip sends body and returns the reply, which may be changed by the next call.
type roundTrip func(body []byte) (reply []byte, err error)

// A meeter is a sender that knows peers it has never talked to.
type meeter interface {
	// meet makes the first round trip to another peer each time, and returns false
	// when there is none left.
	meet(body []byte) (reply []byte, ok bool, err error)
}

// A pipeliner makes round trips with one goroutine that keeps many outstanding.
type pipeliner interface {
	pipeline(body []byte, outstanding int, stopped func() bool) (count int, samples []uint32, err error)
}

// ours are the peers that this program carries out itself, by name. Those in C are in native.go.
func ours() map[string]peer {
	return map[string]peer{
		"raw":         raw{},
		"raw-1":       rawPipeline{},
		"mangos":      mangosPeer{scheme: "tcp"},
		"mangos-sp":   mangosPeer{scheme: sp.Scheme},
		"nats":        natsPeer{},
		"grpc":        grpcPeer{},
		"memberlist":  memberlistPeer{},
		"sp":          spPeer{},
		"sp-poll":     spPeer{poll: 50 * time.Microsecond},
		"unicast":     unicastPeer{},
		"unicast-own": unicastPeer{own: true},
	}
}

// A body begins with a byte that is 0, and 1 in the last one-way message of a run,
// which then says how many there were.

func lastBody(size int, count uint64) []byte {
	b := make([]byte, size)
	b[0] = 1
	binary.LittleEndian.PutUint64(b[1:], count)
	return b
}

// sink counts one-way messages and tells when all have come, in whatever order. It
// is used by one goroutine at a time.
type sink struct {
	count, want uint64
	done        func(count uint64)
}

func (s *sink) take(body []byte) {
	s.count++
	if body[0] != 0 {
		s.want = binary.LittleEndian.Uint64(body[1:])
	}
	if s.count == s.want {
		s.done(s.count)
		s.count, s.want = 0, 0
	}
}
