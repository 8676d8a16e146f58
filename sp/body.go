package sp

import (
	"math/bits"
	"sync"
)

// body is the memory of one large message. Its sizes are chunkSize doubled again and
// again, each with some room for headers.
type body struct{ b []byte }

const (
	bodyRoom    = 8 << 10
	bodyClasses = 10
)

// bodies are memory without an owner, by class, as chunks are.
var bodies [bodyClasses]sync.Pool

// bodyClass is the smallest class that holds n bytes.
func bodyClass(n int) int { return bits.Len(uint(max(0, n-bodyRoom-1)) / chunkSize) }

func bodySize(class int) int { return chunkSize<<class + bodyRoom }

// getBody returns memory for a message that is said to have n bytes: for all of it
// when there is some, and else for the first chunkSize.
func getBody(n int) *body {
	if b, ok := bodies[bodyClass(n)].Get().(*body); ok {
		return b
	}
	if b, ok := bodies[0].Get().(*body); ok {
		return b
	}
	return &body{make([]byte, bodySize(0))}
}

// growBody returns memory of twice the size, for a message of n bytes of at most limit,
// with what old has.
func growBody(old *body, n, limit int) *body {
	class := min(bodyClass(n), bodyClass(cap(old.b))+1)
	b, ok := bodies[class].Get().(*body)
	if !ok {
		b = &body{make([]byte, max(cap(old.b)+1, min(bodySize(class), limit)))}
	}
	copy(b.b, old.b[:cap(old.b)])
	putBody(old)
	return b
}

// putBody gives memory back. What was capped at a limit serves a smaller class.
func putBody(b *body) {
	b.b = b.b[:cap(b.b)]
	for class := bodyClasses - 1; class >= 0; class-- {
		if cap(b.b) >= bodySize(class) {
			bodies[class].Put(b)
			return
		}
	}
}
