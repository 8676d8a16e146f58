package chaos_test

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// scribble overwrites a body that is the caller's again: whoever still uses it will be
// found out.
func scribble(body []byte) {
	for i := range body {
		body[i] = 0xee
	}
}

// parts cuts a message into one to four, of which some may be empty.
func parts(rnd *rand.Rand, body []byte) (all [][]byte) {
	for range rnd.IntN(4) {
		n := rnd.IntN(len(body) + 1)
		all = append(all, body[:n])
		body = body[n:]
	}
	return append(all, body)
}

// ask sends a request in one of the ways there are. A reply that room is given for may
// be put there.
func ask(ctx context.Context, rnd *rand.Rand, q *sp.Requester, body, room []byte, deadline time.Time) ([]byte, error) {
	if deadline.IsZero() && rnd.IntN(2) == 0 {
		return q.Request(ctx, body)
	}
	n := rnd.IntN(len(body) + 1)
	x := sp.Exchange{Head: body[:n], Body: body[n:], Deadline: deadline}
	if rnd.IntN(2) == 0 {
		x.Reply = room[:0]
	}
	err := q.Do(ctx, &x)
	return x.Reply, err
}
