package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"time"
)

// raw is TCP and nothing else: an 8-byte length before each body, as SP has it. It
// is what the others are measured against, so it is written to be fast, and knows
// nothing of limits, deadlines or other connections.
//
// Requests with one outstanding are a ping-pong of one write and one read each. With
// many outstanding, callers queue their requests, and what is queued leaves in one
// write (rawQueue). One-way messages go through a buffer of 64 KiB.
type raw struct{}

// rawLarge is from which size a body is not copied to join others.
const rawLarge = 16 << 10

const rawBuffer = 64 << 10

func (raw) receive(t task, s *sink) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if t.kind == oneWay {
					rawCount(conn, s)
				} else {
					rawEcho(conn)
				}
			}()
		}
	}()
	return l.Addr().String(), nil
}

// rawFrames reads frames. What next returns, header and body, is valid until the
// next call.
type rawFrames struct {
	r     *bufio.Reader
	large []byte
	used  int // bytes of the frame returned last that are in r yet
}

func newRawFrames(r io.Reader) *rawFrames {
	return &rawFrames{r: bufio.NewReaderSize(r, rawBuffer)}
}

func (f *rawFrames) next() (frame []byte, err error) {
	if f.used > 0 {
		f.r.Discard(f.used) // it was peeked at, so it is there
		f.used = 0
	}
	header, err := f.r.Peek(8)
	if err != nil {
		return nil, err
	}
	n := 8 + int(binary.BigEndian.Uint64(header))
	if n <= rawLarge {
		frame, err = f.r.Peek(n)
		f.used = n
		return frame, err
	}
	if cap(f.large) < n {
		f.large = make([]byte, n)
	}
	frame = f.large[:n]
	_, err = io.ReadFull(f.r, frame)
	return frame, err
}

// more tells whether another small frame can be read without waiting.
func (f *rawFrames) more() bool { return f.r.Buffered() > f.used+8 }

func rawCount(conn net.Conn, s *sink) {
	in := newRawFrames(conn)
	for {
		frame, err := in.next()
		if err != nil {
			return
		}
		s.take(frame[8:])
	}
}

func rawEcho(conn net.Conn) {
	in := newRawFrames(conn)
	out := make([]byte, 0, rawBuffer)
	for {
		frame, err := in.next()
		if err != nil {
			return
		}
		if len(frame) > rawLarge {
			if _, err := conn.Write(frame); err != nil {
				return
			}
			continue
		}
		out = append(out, frame...)
		if in.more() && len(out)+rawLarge <= cap(out) {
			continue
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

func (raw) connect(t task) (sender, error) {
	conn, err := net.Dial("tcp", t.receiver)
	if err != nil {
		return nil, err
	}
	switch {
	case t.kind == oneWay:
		return &rawPush{Conn: conn, out: make([]byte, 0, rawBuffer)}, nil
	case t.outstanding == 1:
		return &rawPingPong{conn: conn, in: newRawFrames(conn)}, nil
	}
	q := &rawQueue{conn: conn, large: t.size > rawLarge}
	go q.read()
	return q, nil
}

var errNotHere = errors.New("not this way")

// rawVector writes a large frame without copying it, with one system call and without
// an allocation.
type rawVector struct {
	header  [8]byte
	both    [2][]byte
	buffers net.Buffers
}

func (v *rawVector) write(conn net.Conn, body []byte) error {
	binary.BigEndian.PutUint64(v.header[:], uint64(len(body)))
	v.both = [2][]byte{v.header[:], body}
	v.buffers = v.both[:]
	_, err := v.buffers.WriteTo(conn)
	return err
}

// rawPush sends one way.
type rawPush struct {
	net.Conn
	out   []byte // small frames
	large rawVector
}

func (p *rawPush) push(body []byte) error {
	if len(p.out) > 0 && len(p.out)+8+len(body) > rawBuffer {
		if err := p.flush(); err != nil {
			return err
		}
	}
	if len(body) > rawLarge {
		return p.large.write(p.Conn, body)
	}
	p.out = binary.BigEndian.AppendUint64(p.out, uint64(len(body)))
	p.out = append(p.out, body...)
	return nil
}

func (p *rawPush) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.Conn.Write(p.out)
	p.out = p.out[:0]
	return err
}

func (p *rawPush) caller() (roundTrip, error) { return nil, errNotHere }
func (p *rawPush) close()                     { p.Conn.Close() }

// rawPingPong has one request outstanding.
type rawPingPong struct {
	conn  net.Conn
	in    *rawFrames
	out   []byte
	large rawVector
}

func (p *rawPingPong) caller() (roundTrip, error) {
	return func(body []byte) ([]byte, error) {
		if len(body) > rawLarge {
			if err := p.large.write(p.conn, body); err != nil {
				return nil, err
			}
		} else {
			p.out = binary.BigEndian.AppendUint64(p.out[:0], uint64(len(body)))
			p.out = append(p.out, body...)
			if _, err := p.conn.Write(p.out); err != nil {
				return nil, err
			}
		}
		frame, err := p.in.next()
		if err != nil {
			return nil, err
		}
		return frame[8:], nil
	}, nil
}

func (p *rawPingPong) push([]byte) error { return errNotHere }
func (p *rawPingPong) flush() error      { return errNotHere }
func (p *rawPingPong) close()            { p.conn.Close() }

// rawQueue has many callers. A caller who finds nobody writing lets the others queue
// their requests first, and writes for all.
type rawQueue struct {
	conn  net.Conn
	large bool

	mu      sync.Mutex
	writing bool
	pending []byte      // small frames
	spare   []byte      // for the next ones
	vector  [][]byte    // large frames
	older   [][]byte    // for the next ones
	buffers net.Buffers // being written
	waiting []*rawCall  // replies come in the order of requests
	oldest  int         // index in waiting
	err     error
}

type rawCall struct {
	header [8]byte
	reply  []byte
	err    error
	done   chan struct{}
}

func (q *rawQueue) caller() (roundTrip, error) {
	c := &rawCall{done: make(chan struct{}, 1)}
	return func(body []byte) ([]byte, error) {
		if err := q.send(c, body); err != nil {
			return nil, err
		}
		<-c.done
		return c.reply, c.err
	}, nil
}

func (q *rawQueue) send(c *rawCall, body []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	q.waiting = append(q.waiting, c)
	if q.large {
		binary.BigEndian.PutUint64(c.header[:], uint64(len(body)))
		q.vector = append(q.vector, c.header[:], body)
	} else {
		q.pending = binary.BigEndian.AppendUint64(q.pending, uint64(len(body)))
		q.pending = append(q.pending, body...)
	}
	if q.writing {
		return nil
	}
	q.writing = true
	for len(q.pending)+len(q.vector) > 0 && q.err == nil {
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
		out, vector := q.pending, q.vector
		q.pending, q.vector = q.spare[:0], q.older[:0]
		q.mu.Unlock()
		var err error
		if q.large {
			q.buffers = vector
			_, err = q.buffers.WriteTo(q.conn)
		} else {
			_, err = q.conn.Write(out)
		}
		q.mu.Lock()
		q.spare, q.older = out, vector
		if err != nil {
			q.conn.Close() // read tells the callers
		}
	}
	q.writing = false
	return nil
}

func (q *rawQueue) read() {
	in := newRawFrames(q.conn)
	for {
		frame, err := in.next()
		q.mu.Lock()
		if err != nil {
			q.err = err
			for _, c := range q.waiting[q.oldest:] {
				c.err = err
				c.done <- struct{}{}
			}
			q.mu.Unlock()
			return
		}
		c := q.waiting[q.oldest]
		if q.oldest++; q.oldest == len(q.waiting) {
			q.waiting, q.oldest = q.waiting[:0], 0
		} else if q.oldest == callers {
			q.waiting, q.oldest = q.waiting[:copy(q.waiting, q.waiting[q.oldest:])], 0
		}
		q.mu.Unlock()
		c.reply = append(c.reply[:0], frame[8:]...)
		c.done <- struct{}{}
	}
}

func (q *rawQueue) push([]byte) error { return errNotHere }
func (q *rawQueue) flush() error      { return errNotHere }
func (q *rawQueue) close()            { q.conn.Close() }

// rawPipeline is one goroutine that keeps many requests outstanding: less than any
// library with callers has to do.
type rawPipeline struct{ raw }

func (rawPipeline) connect(t task) (sender, error) {
	conn, err := net.Dial("tcp", t.receiver)
	if err != nil {
		return nil, err
	}
	return &rawStream{rawPingPong{conn: conn, in: newRawFrames(conn)}}, nil
}

type rawStream struct{ rawPingPong }

func (p *rawStream) pipeline(body []byte, outstanding int, stopped func() bool) (count int, samples []uint32, err error) {
	begin := make([]time.Time, outstanding) // of one in so many, by its number
	sent := 0
	add := func() {
		if sent%sampled == 0 {
			begin[sent%outstanding] = time.Now()
		}
		p.out = binary.BigEndian.AppendUint64(p.out, uint64(len(body)))
		p.out = append(p.out, body...)
		sent++
	}
	for range outstanding {
		add()
	}
	for count < sent {
		if len(p.out) > 0 && !p.in.more() {
			if _, err := p.conn.Write(p.out); err != nil {
				return 0, nil, err
			}
			p.out = p.out[:0]
		}
		frame, err := p.in.next()
		if err != nil {
			return 0, nil, err
		}
		if err := check(frame[8:], len(body), nil); err != nil {
			return 0, nil, err
		}
		if count%sampled == 0 {
			samples = append(samples, uint32(time.Since(begin[count%outstanding])))
		}
		count++
		if !stopped() {
			add()
		}
	}
	return count, samples, nil
}
