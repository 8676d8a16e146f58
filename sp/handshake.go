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

// handshake exchanges the greetings. The deadline is the caller's to set.
func handshake(c io.ReadWriter, info mangos.ProtocolInfo) error {
	b := greeting(info.Self)
	if _, err := c.Write(b[:]); err != nil {
		return plain(err)
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return plain(err)
	}
	return checkGreeting(b, info)
}

func checkGreeting(b [greetingSize]byte, info mangos.ProtocolInfo) error {
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
