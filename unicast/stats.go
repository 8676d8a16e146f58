package unicast

import (
	"sync/atomic"

	"github.com/parley-mesh/parley/codec"
	"github.com/parley-mesh/parley/sp"
)

// Stats are the counters of a Messenger since Listen, and its state now. Sizes
// are in bytes of bodies, where nothing else is said.
type Stats struct {
	Push, Send, Request, Ping KindStats // SendReserved counts as Send

	NotUnderstood uint64 // received envelopes that were malformed, of another version, too large, or at the wrong endpoint
	Foreign       uint64 // received messages that are not envelopes at all: another program speaks SP to us

	InFlight int // calls in progress here
	Handling int // handlers at work

	PushesQueued      int // pushes accepted and not yet written, or waiting for this node's own handler
	PushesQueuedBytes int // with their envelopes
	PushesLost        LostPushes

	Connections  int    // open, made by us
	Dials        uint64 // attempts to connect
	DialFailures uint64
	Evictions    uint64 // idle connections closed because MaxConnections was reached
	IdleClosed   uint64 // connections closed after IdleTimeout
	Lost         uint64 // connections that broke or that the other side closed

	RepListener  sp.Stats // connections made to us
	PullListener sp.Stats
}

// KindStats are the counters for one kind of message.
type KindStats struct {
	// What this node sent.
	Sent          uint64 // calls that returned: the sum of the four below
	OK            uint64 // returned nil
	NotDelivered  uint64
	Unknown       uint64
	HandlerFailed uint64
	BytesSent     uint64 // of calls that were not NotDelivered
	Resent        uint64 // times that an idempotent message was sent again

	// What this node received. Those after Received tell what became of it.
	Received        uint64
	BytesReceived   uint64
	Handled         uint64 // the handler returned nil, or a ping was answered
	HandlerErrors   uint64
	HandlerPanics   uint64
	Timeouts        uint64 // the handler failed because the deadline had passed
	RepliesTooLarge uint64
	NoListener      uint64 // not handled, as all that follow
	Busy            uint64
	WrongNode       uint64
	Closing         uint64
	Duplicates      uint64
}

// LostPushes tells why pushes that had been accepted were not written.
type LostPushes struct {
	ConnectionLost uint64 // the connection broke, and no other could be made
	NodeGone       uint64 // the node failed, left or was started anew
	Closed         uint64 // this Messenger was closed before they were written
	Bytes          uint64 // of all of these, with their envelopes
}

// counters is where Stats come from.
type counters struct {
	kinds [codec.KindPing + 1]kindCounters // by codec.Kind

	notUnderstood, foreign         atomic.Uint64
	lostConn, lostGone, lostClosed atomic.Uint64
	lostBytes                      atomic.Uint64
	dials, dialFailures, evictions atomic.Uint64
	idleClosed, connectionsLost    atomic.Uint64
}

type kindCounters struct {
	ok, bytesSent           atomic.Uint64
	resent                  atomic.Uint64
	failed                  [Handled + 1]atomic.Uint64 // by Outcome
	received, bytesReceived atomic.Uint64
	duplicates              atomic.Uint64
	became                  [codec.StatusMalformed + 1]atomic.Uint64 // by codec.Status
}

// lostPushes is the sum of LostPushes.
func (c *counters) lostPushes() (messages, bytes uint64) {
	return c.lostConn.Load() + c.lostGone.Load() + c.lostClosed.Load(), c.lostBytes.Load()
}

func (c *kindCounters) stats() KindStats {
	s := KindStats{
		OK:            c.ok.Load(),
		NotDelivered:  c.failed[NotDelivered].Load(),
		Unknown:       c.failed[Unknown].Load(),
		HandlerFailed: c.failed[Handled].Load(),
		BytesSent:     c.bytesSent.Load(),
		Resent:        c.resent.Load(),

		Received:        c.received.Load(),
		BytesReceived:   c.bytesReceived.Load(),
		Handled:         c.became[codec.StatusOK].Load(),
		HandlerErrors:   c.became[codec.StatusHandlerError].Load(),
		HandlerPanics:   c.became[codec.StatusHandlerPanic].Load(),
		Timeouts:        c.became[codec.StatusTimeout].Load(),
		RepliesTooLarge: c.became[codec.StatusReplyTooLarge].Load(),
		NoListener:      c.became[codec.StatusNoHandler].Load(),
		Busy:            c.became[codec.StatusBusy].Load(),
		WrongNode:       c.became[codec.StatusWrongNode].Load(),
		Closing:         c.became[codec.StatusClosing].Load(),
		Duplicates:      c.duplicates.Load(),
	}
	s.Sent = s.OK + s.NotDelivered + s.Unknown + s.HandlerFailed
	return s
}

// Stats returns a copy of the counters. They are read one after the other, so
// that sums may be off by what happens meanwhile.
func (m *Messenger) Stats() Stats {
	c := &m.counters
	s := Stats{
		Push:          c.kinds[codec.KindPush].stats(),
		Send:          c.kinds[codec.KindSend].stats(),
		Request:       c.kinds[codec.KindRequest].stats(),
		Ping:          c.kinds[codec.KindPing].stats(),
		NotUnderstood: c.notUnderstood.Load(),
		Foreign:       c.foreign.Load(),
		InFlight:      m.calls.count(),
		Handling:      int(m.handling.Load()),
		PushesLost: LostPushes{
			ConnectionLost: c.lostConn.Load(),
			NodeGone:       c.lostGone.Load(),
			Closed:         c.lostClosed.Load(),
			Bytes:          c.lostBytes.Load(),
		},
		Dials:        c.dials.Load(),
		DialFailures: c.dialFailures.Load(),
		Evictions:    c.evictions.Load(),
		IdleClosed:   c.idleClosed.Load(),
		Lost:         c.connectionsLost.Load(),
	}
	s.Connections, s.PushesQueued, s.PushesQueuedBytes = m.pool.size()
	messages, bytes := m.own.pushes.queued()
	s.PushesQueued += messages
	s.PushesQueuedBytes += bytes
	if m.rep != nil {
		s.RepListener = m.rep.Stats()
		s.PullListener = m.pull.Stats()
	}
	return s
}
