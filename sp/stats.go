package sp

import "sync/atomic"

// Stats of a Replier, Puller, Requester or Pusher: what is now (int) and what has
// been since it was made (uint64). What a role cannot have stays zero.
type Stats struct {
	Pipes    int // connections, and broken ones of which messages are still handled
	Pending  int // connections in the handshake
	Handling int // Replier, Puller: messages being handled; Requester: requests outstanding

	Accepted        uint64 // connections that a listener took after the handshake
	Refused         uint64 // connections closed because of MaxPipes, MaxPending or MaxPerPeer
	OverPending     uint64 // of these, because of MaxPending
	OverPerPeer     uint64 // of these, because of MaxPerPeer
	Unidentified    uint64 // connections that Config.Identify refused
	AcceptErrors    uint64 // failures to accept a connection: no file descriptors left, say
	HandshakeFailed uint64 // connections that did not complete the handshake, for whatever reason

	MessagesIn, BytesIn   uint64 // SP messages, and their bytes with SP headers
	MessagesOut, BytesOut uint64 // the same, written to connections

	TooLarge    uint64 // messages over MaxMessage: received (the peer was disconnected) or refused to a sender
	Malformed   uint64 // messages without a valid SP header
	Stall       uint64 // peers disconnected after StallTimeout
	Dropped     uint64 // Replier, Puller: messages received and never given to the handler
	RepliesLost uint64 // Replier: replies of the handler that could not be written
	LateReplies uint64 // Requester: replies that nobody waited for any more
}

// counters is the part of Stats that only grows.
type counters struct {
	accepted, refused, handshakeFailed atomic.Uint64
	overPending, overPerPeer           atomic.Uint64
	unidentified, acceptErrors         atomic.Uint64
	messagesIn, bytesIn                atomic.Uint64
	messagesOut, bytesOut              atomic.Uint64
	tooLarge, malformed, stall         atomic.Uint64
	dropped, repliesLost, lateReplies  atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Accepted: c.accepted.Load(), Refused: c.refused.Load(), HandshakeFailed: c.handshakeFailed.Load(),
		OverPending: c.overPending.Load(), OverPerPeer: c.overPerPeer.Load(),
		Unidentified: c.unidentified.Load(), AcceptErrors: c.acceptErrors.Load(),
		MessagesIn: c.messagesIn.Load(), BytesIn: c.bytesIn.Load(),
		MessagesOut: c.messagesOut.Load(), BytesOut: c.bytesOut.Load(),
		TooLarge: c.tooLarge.Load(), Malformed: c.malformed.Load(), Stall: c.stall.Load(),
		Dropped: c.dropped.Load(), RepliesLost: c.repliesLost.Load(), LateReplies: c.lateReplies.Load(),
	}
}
