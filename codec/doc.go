// Package codec is the bytes of Parley: the [Envelope] that carries a message
// from one node to another, the [Reply] that comes back, the [Metadata] that a
// member gossips about itself, and value codecs ([Msgpack], [JSON], [Raw]) for
// those who want them.
//
//	env := codec.Envelope{
//		Kind: codec.KindSend, ID: codec.NewID(instance, seq),
//		From: "node1", To: "node2", Topic: "orders", Body: body,
//	}
//	frame, err := env.Append(nil)          // *LimitError, *NameError
//	…
//	got, err := codec.ParseEnvelope(frame, 1<<20)
//	if errors.Is(err, codec.ErrNotEnvelope) {
//		// a foreign program spoke plain SP to us
//	}
//
// # Formats
//
// The layouts are given byte for byte at [Version]. All of them are strict:
// what this package does not know it refuses, with a typed error, and what it
// accepts it could have sent. Everything that is parsed is the claim of a
// stranger: names, topics, addresses and texts are validated here, so that the
// packages above may log and compare them without a second look.
//
// # Concurrency and memory
//
// Everything here is a plain value; functions may be called concurrently on
// different values, and there is no state to close. Append allocates nothing
// for envelopes and replies when dst has the capacity that Size reports. Parse
// allocates the strings and nothing else, and a [Parser] not even those that it has
// met; Body aliases the input, so the input must not be reused while the body is in
// use.
//
// This package is the only door to go-msgpack.
package codec
