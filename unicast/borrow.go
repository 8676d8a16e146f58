package unicast

import "github.com/parley-mesh/parley/sp"

// Borrow returns a Handler that hands messages to h whose Body is lent: it is valid
// until h returns, and h may change it and reply with it, but neither h nor what it
// started may use it later. Without it each body is a copy, or memory of its own,
// which costs most of what it takes to receive messages of some KiB and more.
//
// It has that effect as the Handler of a Messenger and as that of a route of a Mux
// that is. Elsewhere, as inside a Handler that wraps it, bodies are the handler's own
// as usual. Those of messages that a node sends to itself are copies in any case.
func Borrow(h Handler) Handler { return borrowed{h} }

type borrowed struct{ Handler }

// find returns who handles topic, past all Muxes, and whether it borrows bodies.
func find(h Handler, topic string) (found Handler, borrows bool) {
	for {
		switch x := h.(type) {
		case *Mux:
			h = x.find(topic)
		case borrowed:
			h, borrows = x.Handler, true
		default:
			return h, borrows
		}
	}
}

// takeFrom is the size of bodies that came in a buffer of their own, which is then
// taken, with the envelope before them. Smaller ones are copied.
const takeFrom = 16 << 10

// taken is the body of in as its receiver's own, which it is when in is nil.
func taken(in *sp.Inbound, body []byte) []byte {
	if in == nil {
		return body
	}
	if len(body) < takeFrom {
		return copied(body)
	}
	frame := in.Take()
	return frame[len(frame)-len(body) : len(frame) : len(frame)]
}
