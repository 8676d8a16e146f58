package sp

import "sync"

// chunkSize is the unit of all buffering, in bytes: one system call moves about that
// much.
const chunkSize = 64 << 10

// inPlace is the largest message that is read and written by way of chunks. A larger
// one is not copied: it goes from, and comes into, memory of its own.
const inPlace = 16 << 10

type chunk [chunkSize]byte

// chunks are memory without an owner: connections have some of it only while bytes
// are on their way, so that an idle one costs none.
var chunks = sync.Pool{New: func() any { return new(chunk) }}

func getChunk() *chunk  { return chunks.Get().(*chunk) }
func putChunk(c *chunk) { chunks.Put(c) }
