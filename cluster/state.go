package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-mesh/parley/codec"
)

// MaxGossipState is the largest state of the gossip consumer that travels with
// an exchange of states, in bytes. A larger one is not sent, and counted.
const MaxGossipState = 192 << 10

// The state that two nodes exchange beside memberlist's own, big endian:
//
//	version   1 byte, 1
//	instance  8 bytes, of the sender
//	name      1 byte length, then the sender's name
//	departed  2 bytes count, then for each: instance 8 bytes, 1 byte length, name
//	consumer  4 bytes length, then the state of the gossip consumer
const (
	stateVersion = 1
	maxState     = 256 << 10
	maxDeparted  = 512 // names of instances that said goodbye, the latest
	maxName      = codec.MaxName
)

type peerState struct {
	from     identity
	departed []identity
	consumer []byte // aliases what was parsed
}

// identity is one instance.
type identity struct {
	name     string
	instance uint64
}

func appendIdentity(b []byte, id identity) []byte {
	b = binary.BigEndian.AppendUint64(b, id.instance)
	b = append(b, byte(len(id.name)))
	return append(b, id.name...)
}

func (s *peerState) append(b []byte) []byte {
	b = append(b, stateVersion)
	b = appendIdentity(b, s.from)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.departed)))
	for _, id := range s.departed {
		b = appendIdentity(b, id)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.consumer)))
	return append(b, s.consumer...)
}

var errState = errors.New("malformed state")

// parseState is strict: what it accepts, append could have written.
func parseState(b []byte) (*peerState, error) {
	if len(b) > maxState {
		return nil, &codec.LimitError{What: "state", Size: len(b), Limit: maxState}
	}
	if len(b) < 1 {
		return nil, fmt.Errorf("%w: empty", errState)
	}
	if b[0] != stateVersion {
		return nil, &codec.VersionError{What: "state", Version: uint64(b[0])}
	}
	s := &peerState{}
	b, err := parseIdentity(b[1:], &s.from)
	if err != nil {
		return nil, err
	}
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: no count", errState)
	}
	count := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; count > maxDeparted {
		return nil, fmt.Errorf("%w: %d departed, the limit is %d", errState, count, maxDeparted)
	}
	for range count {
		var id identity
		if b, err = parseIdentity(b, &id); err != nil {
			return nil, err
		}
		s.departed = append(s.departed, id)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("%w: no consumer", errState)
	}
	size := uint64(binary.BigEndian.Uint32(b))
	if b = b[4:]; size != uint64(len(b)) {
		return nil, fmt.Errorf("%w: %d bytes for the consumer, its length says %d", errState, len(b), size)
	}
	if size > MaxGossipState {
		return nil, &codec.LimitError{What: "gossip state", Size: len(b), Limit: MaxGossipState}
	}
	s.consumer = b
	return s, nil
}

func parseIdentity(b []byte, id *identity) (rest []byte, err error) {
	if len(b) < 9 {
		return nil, fmt.Errorf("%w: truncated identity", errState)
	}
	id.instance = binary.BigEndian.Uint64(b)
	size := int(b[8])
	if b = b[9:]; len(b) < size {
		return nil, fmt.Errorf("%w: truncated name", errState)
	}
	id.name = string(b[:size])
	if err := codec.ValidName(id.name); err != nil {
		return nil, fmt.Errorf("%w: %w", errState, err)
	}
	if id.instance == 0 {
		return nil, fmt.Errorf("%w: instance 0", errState)
	}
	return b[size:], nil
}

// localState is what the other side of an exchange gets.
func (n *Node) localState() []byte {
	s := peerState{from: identity{n.name, n.instance}}
	n.mu.RLock()
	if n.ended {
		n.mu.RUnlock()
		return nil
	}
	var departed []*record
	n.table.each(func(r *record) bool {
		if r.member.Status == Left {
			departed = append(departed, r)
		}
		return true
	})
	n.mu.RUnlock()
	for _, r := range latest(departed, maxDeparted) {
		s.departed = append(s.departed, identity{r.member.Name, r.member.Instance})
	}
	n.inbox.using.RLock()
	if c := n.inbox.consumer; c != nil && c.state != nil {
		s.consumer = c.state()
	}
	n.inbox.using.RUnlock()
	if len(s.consumer) > MaxGossipState {
		n.stats.stateTooLarge.Add(1)
		n.warn("gossip state not sent: it is too large", "size", len(s.consumer), "limit", MaxGossipState)
		s.consumer = nil
	}
	return s.append(nil)
}

// mergeState takes what the other side of an exchange gave.
func (n *Node) mergeState(b []byte) {
	s, err := parseState(b)
	if err != nil {
		n.stats.malformed.Add(1)
		n.warn("state refused", "err", err)
		return
	}
	if s.from.instance == n.instance {
		n.metSelf.Store(true) // by way of some alias
		return
	}
	if s.from.name == n.name {
		n.conflicts.hear(s.from.instance)
	}
	for _, id := range s.departed {
		n.sayGoodbye(id.name, id.instance)
	}
	in := n.inbox
	in.merging.Lock() // the first one is merged before any other
	defer in.merging.Unlock()
	fresh := !in.merged
	in.merged = true
	in.using.RLock()
	defer in.using.RUnlock()
	if c := in.consumer; c != nil && c.merge != nil && len(s.consumer) > 0 {
		c.merge(append([]byte(nil), s.consumer...), fresh)
	}
}

// latest returns the most records that departed last.
func latest(records []*record, most int) []*record {
	if len(records) <= most {
		return records
	}
	slices.SortFunc(records, func(a, b *record) int { return b.member.Since.Compare(a.member.Since) })
	return records[:most]
}
