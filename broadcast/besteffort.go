package broadcast

import (
	"errors"
	"fmt"
	"time"

	"github.com/parley-mesh/parley/codec"
)

// BestEffort puts a small message into the cluster's gossip. nil means that it
// was queued: in a quiet cluster every live node has it after about a second
// (the rare ones that gossip misses, after one of their next push/pull exchanges),
// at most once each, in no particular order. Nobody tells who got it. A node that
// is alone keeps the message for those that come within two minutes, unless theirs
// is the first exchange of their life. body may be reused when the call returns.
//
// Nothing is queued when it returns an error:
//   - *codec.LimitError: the body is over MaxGossip (1 KiB), or the topic over 255
//     bytes, or together with the names they do not fit a gossip packet;
//   - ErrReservedTopic: the topic begins with '$';
//   - the cluster's own error when its gossip budget is spent (cluster.ErrGossipBusy):
//     the cluster cannot carry more, try again later;
//   - ErrClosed.
func (b *Broadcaster) BestEffort(topic string, body []byte) error {
	err := b.bestEffort(topic, body)
	if err != nil {
		b.count.gossipRefused.Add(1)
		return fmt.Errorf("broadcast: best effort: %w", err)
	}
	b.count.gossipSent.Add(1)
	return nil
}

func (b *Broadcaster) bestEffort(topic string, body []byte) error {
	if !b.begin() {
		return ErrClosed
	}
	defer b.running.Done()
	if err := checkTopic(topic); err != nil {
		return err
	}
	if len(body) > b.cfg.MaxGossip {
		return &codec.LimitError{What: "body", Size: len(body), Limit: b.cfg.MaxGossip}
	}
	env := codec.Envelope{Kind: codec.KindGossip, ID: b.nextID(), From: b.self, Topic: topic, Body: body}
	payload, err := env.Append(make([]byte, 0, env.Size()))
	if err != nil {
		return err
	}
	if err := b.gossip.Gossip(payload, false); err != nil {
		return err
	}
	b.mu.Lock()
	b.recent.add(time.Now(), payload)
	b.mu.Unlock()
	return nil
}

// parseGossip reads an envelope of best-effort gossip.
func parseGossip(payload []byte) (codec.Envelope, error) {
	env, err := codec.ParseEnvelope(payload, MaxGossip)
	if err != nil {
		return env, err
	}
	return env, checkGossip(&env)
}

func checkGossip(env *codec.Envelope) error {
	if env.Kind != codec.KindGossip {
		return fmt.Errorf("a %v is not gossip", env.Kind)
	}
	if len(env.Body) > MaxGossip {
		return &codec.LimitError{What: "body", Size: len(env.Body), Limit: MaxGossip}
	}
	return checkForAll(env)
}

// checkForAll holds what arrives to what we send.
func checkForAll(env *codec.Envelope) error {
	if env.To != "" || env.ToInstance != 0 || env.Timeout != 0 {
		return errors.New("a broadcast has no receiver and no deadline of its own")
	}
	return checkTopic(env.Topic)
}

// receive takes what the cluster hands over: gossip, and what another node wrote
// with SendReliable because this one offers no mailbox. It does not block.
func (b *Broadcaster) receive(payload []byte) {
	env, err := codec.ParseEnvelope(payload, max(b.cfg.MaxMessage, MaxGossip))
	switch {
	case err != nil:
	case env.Kind != codec.KindBroadcast:
		err = checkGossip(&env)
	case b.mailbox:
		err = errNotAcked
	default:
		if err = b.checkReliable(&env); err == nil {
			b.written(env)
			return
		}
	}
	if err != nil {
		b.bad("gossip", env.From, err)
		return
	}
	if b.take(&env, payload, 0) {
		b.relay(payload)
		b.deliver(&env)
	}
}

// take reports whether gossip is seen for the first time, and remembers it.
func (b *Broadcaster) take(env *codec.Envelope, payload []byte, age time.Duration) bool {
	if env.ID.Instance() == b.inst {
		return false // ours, come back
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, seen := b.heard.get(env.ID); seen {
		b.count.gossipDuplicates.Add(1)
		return false
	}
	b.heard.put(env.ID, struct{}{})
	b.recent.add(time.Now().Add(-age), payload)
	b.count.gossipReceived.Add(1)
	return true
}

// relay passes on what was seen for the first time: memberlist spreads a message
// from its originator only, to a dozen nodes.
func (b *Broadcaster) relay(payload []byte) {
	if err := b.gossip.Gossip(payload, true); err != nil {
		b.count.relaysDropped.Add(1)
		b.relayLog.do(func(missed int) {
			b.log.Warn("gossip is not relayed", "err", err, "not_logged", missed)
		})
		return
	}
	b.count.gossipRelayed.Add(1)
}

// deliver hands gossip to the handler's queue.
func (b *Broadcaster) deliver(env *codec.Envelope) {
	if b.handler == nil || env.From == b.self { // ourselves, before a restart
		return
	}
	m := Message{ID: env.ID, From: env.From, Topic: env.Topic, Body: append([]byte(nil), env.Body...)}
	j := &job{msg: m}
	if err := b.queue.offer(j); err != nil {
		b.refuse(j, err)
	}
}

func (b *Broadcaster) dropped(m Message, err error) {
	b.count.dropped.Add(1)
	b.dropLog.do(func(missed int) {
		b.log.Warn("broadcast dropped before the handler", "peer", m.From, "topic", m.Topic, "reliable", m.Reliable,
			"err", err, "not_logged", missed)
	})
}

// bad counts and logs what could not be read.
func (b *Broadcaster) bad(what, peer string, err error) {
	b.count.malformed.Add(1)
	b.badLog.do(func(missed int) {
		b.log.Warn("malformed "+what+" refused", "peer", peer, "err", err, "not_logged", missed)
	})
}

// state is what push/pull offers to another node.
func (b *Broadcaster) state() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recent.encode(time.Now())
}

// merge takes the other node's state. What is new is treated like gossip seen for
// the first time: it is delivered, and relayed too, since after a partition whole
// regions may not have it (the gossip queue bounds the relays). What was said
// before this node came (fresh: the first exchange of its life) or before this
// Broadcaster was opened is only marked as seen; an earlier Broadcaster of the node
// may have delivered it.
func (b *Broadcaster) merge(state []byte, fresh bool) {
	records, err := parseState(state)
	if err != nil {
		b.bad("push/pull state", "", err)
		return
	}
	now := time.Now()
	for _, r := range records {
		if fresh || now.Add(-r.age).Before(b.opened) {
			b.mu.Lock()
			if _, seen := b.heard.get(r.env.ID); !seen {
				b.heard.put(r.env.ID, struct{}{})
				b.count.skipped.Add(1)
			}
			b.mu.Unlock()
			continue
		}
		if b.take(&r.env, r.payload, r.age) {
			b.count.caughtUp.Add(1)
			b.relay(r.payload)
			b.deliver(&r.env)
		}
	}
}
