package codec

import "strconv"

// Kind says what an envelope asks of its receiver.
type Kind uint8

// The numbers are those on the wire.
const (
	KindPush      Kind = iota + 1 // one way, no answer
	KindSend                      // answered by an acknowledgement
	KindRequest                   // answered by the handler's reply
	KindPing                      // answered by the overlay itself
	KindGossip                    // best-effort broadcast, relayed on first sight
	KindBroadcast                 // reliable broadcast, never relayed
)

var kindNames = [...]string{
	KindPush: "push", KindSend: "send", KindRequest: "request",
	KindPing: "ping", KindGossip: "gossip", KindBroadcast: "broadcast",
}

func (k Kind) known() bool { return k >= KindPush && k <= KindBroadcast }

// forAll tells the kinds that need not name a receiver.
func (k Kind) forAll() bool { return k == KindGossip || k == KindBroadcast }

// String returns the kind's name in lower case, such as "send".
func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Status is the outcome that a reply reports.
type Status uint8

// The numbers are those on the wire.
const (
	StatusOK            Status = iota // handled; Body is the reply
	StatusHandlerError                // the handler returned an error; Text is its text
	StatusHandlerPanic                // the handler panicked; Text says with what
	StatusNoHandler                   // nobody listens on this topic; not handled
	StatusBusy                        // the receiver is at a limit; not handled
	StatusWrongNode                   // the receiver is not the node (or instance) named in To; not handled
	StatusClosing                     // the receiver is shutting down; not handled
	StatusTimeout                     // the deadline passed while the handler ran
	StatusReplyTooLarge               // handled, but the reply is over the limit
	StatusMalformed                   // the envelope could not be read; not handled
)

var statusNames = [...]string{
	StatusOK: "ok", StatusHandlerError: "handler error", StatusHandlerPanic: "handler panic",
	StatusNoHandler: "no handler", StatusBusy: "busy", StatusWrongNode: "wrong node",
	StatusClosing: "closing", StatusTimeout: "timeout", StatusReplyTooLarge: "reply too large",
	StatusMalformed: "malformed",
}

func (s Status) known() bool { return s <= StatusMalformed }

// String returns the status in words, in lower case, such as "no handler".
func (s Status) String() string {
	if s.known() {
		return statusNames[s]
	}
	return "status(" + strconv.Itoa(int(s)) + ")"
}
