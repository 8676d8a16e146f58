package sp

import (
	"encoding/binary"
	"fmt"
	"io"

	"go.nanomsg.org/mangos/v3"
)

// greetingSize is the length of what both sides of an SP connection send first:
// zero, 'S', 'P', version zero, the sender's protocol (16 bits), 16 bits of zero.
const greetingSize = 8

func greeting(protocol uint16) (b [greetingSize]byte) {
	b[1], b[2] = 'S', 'P'
	binary.BigEndian.PutUint16(b[4:], protocol)
	return b
}

// Each side greets without waiting for the other, so one may wait: the side that
// dialed speaks first, and a listener answers when it has decided to take the
// connection. So a dial to a listener that refuses fails, instead of giving a
// connection that breaks at once. The deadline is the caller's to set.

func greet(c io.Writer, info mangos.ProtocolInfo) error {
	b := greeting(info.Self)
	if _, err := c.Write(b[:]); err != nil {
		return wireError(err)
	}
	return nil
}

// readGreeting reads the peer's greeting and nothing beyond it.
func readGreeting(c io.Reader, info mangos.ProtocolInfo) error {
	var b [greetingSize]byte
	if n, err := io.ReadFull(c, b[:]); err != nil {
		if isTLS(b[:n]) { // an alert is shorter than a greeting
			return errSpeaksTLS
		}
		return wireError(err)
	}
	return checkGreeting(b, info)
}

var errSpeaksTLS = fmt.Errorf("%w: the peer speaks TLS (use tls+tcp)", ErrHandshake)

// isTLS reports whether a stream that begins so is TLS: a record of an alert or of a
// handshake.
func isTLS(b []byte) bool { return len(b) > 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3 }

func checkGreeting(b [greetingSize]byte, info mangos.ProtocolInfo) error {
	if isTLS(b[:]) {
		return errSpeaksTLS
	}
	if b[0] != 0 || b[1] != 'S' || b[2] != 'P' || b[6] != 0 || b[7] != 0 {
		return fmt.Errorf("%w: the peer does not speak SP (it began with % x)", ErrHandshake, b)
	}
	if b[3] != 0 {
		return fmt.Errorf("%w: the peer speaks SP version %d, we speak 0", ErrHandshake, b[3])
	}
	if p := binary.BigEndian.Uint16(b[4:]); p != info.Peer {
		return fmt.Errorf("%w: the peer is of protocol %#x, wanted %#x (%s)", ErrHandshake, p, info.Peer, info.PeerName)
	}
	return nil
}
