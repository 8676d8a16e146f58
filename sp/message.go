package sp

import "fmt"

// Requests and replies begin with 32-bit words: the ids of the pipes a request
// came by, when devices forwarded it, and at last the request's own id, which has
// its highest bit set. A reply carries the same words back.
const (
	wordSize  = 4
	maxHops   = 8 // words; a request that has more runs in a circle
	finalWord = 0x80
)

// splitRequest separates the words of a request from its body. The header is nil
// when there are too many of them.
func splitRequest(frame []byte) (header, body []byte, err error) {
	for n := wordSize; n <= maxHops*wordSize; n += wordSize {
		if len(frame) < n {
			return nil, nil, fmt.Errorf("%w: a request of %d bytes without an id", ErrMalformed, len(frame))
		}
		if frame[n-wordSize]&finalWord != 0 {
			return frame[:n:n], frame[n:], nil
		}
	}
	return nil, nil, nil
}
