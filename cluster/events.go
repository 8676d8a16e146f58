package cluster

import (
	"context"
	"iter"
	"sync"
	"time"
)

// EventType says what happened to a member.
type EventType string

const (
	// EventJoined: the member is alive and was not before, or a new instance of
	// it took the place of the one known before (then perhaps at another
	// address; no Failed is said of the old one).
	EventJoined EventType = "joined"
	// EventUpdated: its tags, services or address changed.
	EventUpdated EventType = "updated"
	// EventLeft: it said goodbye. It may follow Failed when the goodbye took
	// longer than the news of the silence.
	EventLeft EventType = "left"
	// EventFailed: it fell silent.
	EventFailed EventType = "failed"
	// EventConflict: another running node has this node's name; Member is that
	// one. The one with the higher epoch stays, the other stops by itself.
	EventConflict EventType = "conflict"
	// EventLagged: the reader was too slow and the oldest events were dropped.
	EventLagged EventType = "lagged"
)

// Event is a change of the member list.
type Event struct {
	Type   EventType
	Member Member // zero for EventLagged
	Lost   int    // EventLagged: how many events were dropped
	Time   time.Time
}

// eventQueue is how many events wait for a slow reader.
const eventQueue = 1024

// Events returns the changes from now on: the subscription begins with the
// call, not with the loop, so that
//
//	events := node.Events(ctx)
//	members := node.Members()
//	for e := range events { … }
//
// misses nothing. Changes of this node itself are among them, observers are
// not. The sequence can be ranged over once. It ends when ctx ends, and after
// the node is closed, then with what was queued. A reader more than 1,024
// events behind loses the oldest and gets an EventLagged that says how many.
func (n *Node) Events(ctx context.Context) iter.Seq[Event] {
	sub := n.subscribe()
	stop := context.AfterFunc(ctx, func() { n.unsubscribe(sub) })
	return func(yield func(Event) bool) {
		defer stop()
		defer n.unsubscribe(sub)
		for ctx.Err() == nil {
			event, ok, open := sub.next()
			if ok {
				event.Member = event.Member.clone()
				if !yield(event) {
					return
				}
				continue
			}
			if !open {
				return
			}
			select {
			case <-sub.wake:
			case <-ctx.Done():
			}
		}
	}
}

// subscription is one reader's queue.
type subscription struct {
	wake chan struct{} // buffered: something changed

	mu     sync.Mutex
	ring   []Event
	head   int // of the oldest, once the ring is full
	lost   int
	closed bool
}

// push queues e and returns how many events it dropped.
func (s *subscription) push(e Event) (dropped int) {
	s.mu.Lock()
	switch {
	case s.closed:
	case len(s.ring) < eventQueue:
		s.ring = append(s.ring, e)
	default:
		s.ring[s.head] = e
		s.head = (s.head + 1) % eventQueue
		s.lost++
		dropped = 1
	}
	s.mu.Unlock()
	s.signal()
	return dropped
}

// next takes the oldest event. open is false when there will be none any more.
func (s *subscription) next() (e Event, ok, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		e = Event{Type: EventLagged, Lost: s.lost, Time: time.Now()}
		s.lost = 0
		return e, true, true
	}
	if len(s.ring) == 0 {
		return e, false, !s.closed
	}
	if s.head > 0 { // make it a plain queue again
		s.ring = append(append(make([]Event, 0, eventQueue), s.ring[s.head:]...), s.ring[:s.head]...)
		s.head = 0
	}
	e = s.ring[0]
	s.ring[0] = Event{}
	s.ring = s.ring[1:]
	return e, true, true
}

func (s *subscription) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

func (s *subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (n *Node) subscribe() *subscription {
	sub := &subscription{wake: make(chan struct{}, 1)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		sub.close()
	} else {
		n.subscribers[sub] = struct{}{}
	}
	return sub
}

func (n *Node) unsubscribe(sub *subscription) {
	n.mu.Lock()
	delete(n.subscribers, sub)
	n.mu.Unlock()
	sub.close()
}

// emit queues an event for every subscriber. n.mu is held.
func (n *Node) emit(t EventType, m Member) {
	e := Event{Type: t, Member: m, Time: time.Now()}
	for sub := range n.subscribers {
		n.stats.eventsDropped.Add(uint64(sub.push(e)))
	}
}

// changed tells the world that a name stood for before and stands for after.
// n.mu is held.
func (n *Node) changed(before, after *record) {
	n.members.Store(int64(n.table.live))
	if before == after {
		return
	}
	switch {
	case after == nil: // expired, or an observer now
	case after.alive():
		if before == nil || !before.alive() || before.member.Instance != after.member.Instance {
			n.emit(EventJoined, after.member)
		} else {
			n.emit(EventUpdated, after.member)
		}
	case before == nil: // never seen alive: listed, but no news
	case after.member.Status != before.member.Status || after.member.Instance != before.member.Instance:
		if after.member.Status == Left {
			n.emit(EventLeft, after.member)
		} else {
			n.emit(EventFailed, after.member)
		}
	}
	close(n.news)
	n.news = make(chan struct{})
}
