package sp

import "time"

// poller reads a socket again and again for a short while before its goroutine parks,
// since waking one up takes longer than a quick answer. It does so while that pays:
// traffic of one message at a time, answered within the limit. Every failure costs
// score, and without score it rests for a number of reads.
type poller struct {
	limit time.Duration // 0: off
	score int
	rest  int
}

const (
	pollScore = 8
	pollRest  = 200
)

// try polls for r, and reports whether something was read or went wrong.
func (p *poller) try(r *reader, fd uintptr) bool {
	if r.burst > 1 {
		return false
	}
	if p.rest > 0 {
		p.rest--
		return false
	}
	for end := time.Now().Add(p.limit); ; {
		r.n, r.err = readInto(int(fd), r.room())
		if !wouldBlock(r.err) {
			p.score = min(p.score+1, pollScore)
			return true
		}
		if !time.Now().Before(end) {
			break
		}
	}
	if p.score -= 2; p.score <= 0 {
		p.score, p.rest = 2, pollRest
	}
	return false
}
