package sp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

const (
	lengthSize = 8        // the length before each message on the wire, big-endian
	readBuffer = 4 << 10  // per connection
	firstStep  = 16 << 10 // what a length alone makes us allocate
	stallStep  = 64 << 10 // what must move within StallTimeout
	wholeStep  = 1 << 20  // of a message; each gives it another StallTimeout in all
)

// pipe is one connection after the handshake: SP messages in both directions. One
// goroutine may receive; any may send. The first error ends it.
type pipe struct {
	conn  net.Conn
	set   *settings
	heard *timedReader
	in    *bufio.Reader // over heard
	late  bool          // a read deadline is set; the reader's

	wmu  sync.Mutex // held for one message
	head []byte     // scratch

	cause     atomic.Pointer[error]
	closeOnce sync.Once
	holders   atomic.Int32
	gone      func() // gives back the place in the listener
	dialed    bool   // there is none
}

// newPipe makes a pipe of conn; gone is nil for one that we dialed.
func newPipe(conn net.Conn, set *settings, gone func()) *pipe {
	heard := &timedReader{in: conn, since: time.Now()}
	p := &pipe{conn: conn, set: set, heard: heard, in: bufio.NewReaderSize(heard, readBuffer), gone: gone, dialed: gone == nil}
	p.holders.Store(1) // the open connection; see hold
	return p
}

// timedReader reads, and knows when it last read something.
type timedReader struct {
	in    io.Reader
	since time.Time    // when it began
	after atomic.Int64 // when it last read, in nanoseconds after since
}

func (l *timedReader) Read(b []byte) (int, error) {
	n, err := l.in.Read(b)
	if n > 0 {
		l.after.Store(int64(time.Since(l.since)))
	}
	return n, err
}

func (l *timedReader) last() time.Time { return l.since.Add(time.Duration(l.after.Load())) }

// hold keeps the pipe's place in its listener beyond Close, until release: a place
// covers the messages being handled too, else a peer could pile them up by
// connecting again and again.
func (p *pipe) hold() { p.holders.Add(1) }

func (p *pipe) release() {
	if p.holders.Add(-1) == 0 && !p.dialed {
		p.gone()
	}
}

// Recv is next, for mangos' core, which closes the pipe at the first error. The
// body is not from mangos' pools.
func (p *pipe) Recv() (*mangos.Message, error) {
	body, err := p.next()
	if err != nil {
		return nil, err
	}
	m := mangos.NewMessage(0)
	m.Body = body
	return m, nil
}

// next returns the next message, a fresh slice that belongs to the caller.
func (p *pipe) next() ([]byte, error) {
	body, err := p.readFrame()
	if err != nil {
		return nil, p.fail(err)
	}
	p.set.stats.messagesIn.Add(1)
	p.set.stats.bytesIn.Add(uint64(len(body)))
	return body, nil
}

// readFrame waits for a message as long as it takes, and reads it as fast as
// StallTimeout demands.
func (p *pipe) readFrame() ([]byte, error) {
	if p.in.Buffered() == 0 {
		p.readDeadline(false)
		if _, err := p.in.Peek(1); err != nil {
			return nil, err // io.EOF here is an orderly end
		}
	}
	var length [lengthSize]byte
	if err := p.readFull(length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint64(length[:])
	if size > uint64(p.set.maxFrame) {
		return nil, oversized(size, p.set.maxFrame)
	}
	return p.readBody(int(size))
}

// readBody grows the body as its bytes arrive: a length is only a claim.
func (p *pipe) readBody(size int) ([]byte, error) {
	body := make([]byte, 0, min(size, firstStep))
	for len(body) < size {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), min(size, 2*cap(body)))
			copy(grown, body)
			body = grown
		}
		step := body[len(body):min(cap(body), len(body)+stallStep)]
		if err := p.readFull(step); err != nil {
			return nil, err
		}
		body = body[:len(body)+len(step)]
	}
	return body, nil
}

func (p *pipe) readFull(b []byte) error {
	if p.in.Buffered() < len(b) {
		p.readDeadline(true)
	}
	if _, err := io.ReadFull(p.in, b); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

func (p *pipe) readDeadline(on bool) {
	switch {
	case on:
		_ = p.conn.SetReadDeadline(time.Now().Add(p.set.stallTimeout))
	case p.late:
		_ = p.conn.SetReadDeadline(time.Time{})
	}
	p.late = on
}

// Send writes a message and frees it. It returns when the system has taken the
// last byte. It fails when the peer lets it wait: a listener's peer, that is.
func (p *pipe) Send(m *mangos.Message) error {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	size := len(m.Header) + len(m.Body)
	p.head = binary.BigEndian.AppendUint64(p.head[:0], uint64(size))
	p.head = append(p.head, m.Header...)
	first := min(len(m.Body), stallStep)
	begun := time.Now()
	p.writeDeadline(begun, size)
	bufs := net.Buffers{p.head, m.Body[:first]}
	if _, err := bufs.WriteTo(p.conn); err != nil {
		return p.fail(err)
	}
	for rest := m.Body[first:]; len(rest) > 0; {
		n := min(len(rest), stallStep)
		p.writeDeadline(begun, size)
		if _, err := p.conn.Write(rest[:n]); err != nil {
			return p.fail(err)
		}
		rest = rest[n:]
	}
	p.set.stats.messagesOut.Add(1)
	p.set.stats.bytesOut.Add(uint64(size))
	m.Body = nil // it is not of mangos' pool and must not stay there
	m.Free()
	return nil
}

// writeDeadline gives a stranger time for the next step of a message of that size,
// and no more than the message as a whole has. A peer that we dialed may let us
// wait for as long as it likes: one that is slow on purpose (back-pressure) looks
// the same from here, and our callers' contexts bound what it costs them.
func (p *pipe) writeDeadline(begun time.Time, size int) {
	if p.dialed {
		return
	}
	step := time.Now().Add(p.set.stallTimeout)
	whole := begun.Add(p.set.stallTimeout * time.Duration(2+size/wholeStep))
	if whole.Before(step) {
		step = whole
	}
	_ = p.conn.SetWriteDeadline(step)
}

// closeWrite tells the peer, after all that was written, that no more will come.
func (p *pipe) closeWrite() {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// fail records the pipe's first error as the cause of its end, counts and logs it,
// and returns that cause.
func (p *pipe) fail(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w for %v", errStalled, p.set.stallTimeout)
	} else {
		err = plain(err)
	}
	if !p.cause.CompareAndSwap(nil, &err) {
		return p.endedBy()
	}
	switch {
	case errors.Is(err, errStalled):
		p.set.stats.stall.Add(1)
		p.set.log.warn("sp: peer disconnected, it stalled", "peer", p.conn.RemoteAddr(), "err", err)
	case errors.Is(err, errOversized):
		p.set.stats.tooLarge.Add(1)
		p.set.log.warn("sp: peer disconnected, its message is too large", "peer", p.conn.RemoteAddr(), "err", err)
	case errors.Is(err, ErrMalformed):
		p.set.stats.malformed.Add(1)
		p.set.log.warn("sp: peer disconnected, its message is malformed", "peer", p.conn.RemoteAddr(), "err", err)
	default:
		p.set.log.debug("sp: connection ended", "peer", p.conn.RemoteAddr(), "err", err)
	}
	return err
}

// endedBy is the cause of the pipe's end, ErrClosed when it was closed on our side.
// The pipe must have ended.
func (p *pipe) endedBy() error {
	if err := p.cause.Load(); err != nil {
		return *err
	}
	return ErrClosed
}

// Close ends the connection; what was written before still reaches the peer.
func (p *pipe) Close() error {
	p.closeOnce.Do(func() {
		closed := ErrClosed
		p.cause.CompareAndSwap(nil, &closed)
		_ = p.conn.Close()
		p.release()
	})
	return nil
}

func (p *pipe) GetOption(name string) (any, error) {
	switch name {
	case optPipe:
		return p, nil
	case mangos.OptionRemoteAddr:
		return p.conn.RemoteAddr(), nil
	case mangos.OptionLocalAddr:
		return p.conn.LocalAddr(), nil
	case mangos.OptionMaxRecvSize:
		return p.set.maxFrame, nil
	}
	return nil, mangos.ErrBadOption
}
