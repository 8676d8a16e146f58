package sp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

const (
	lengthSize = 8        // the length before each message on the wire, big-endian
	stallStep  = 64 << 10 // what must move within StallTimeout
	wholeStep  = 1 << 20  // of all that waits; each gives it another StallTimeout in all
)

// pipe is one connection after the handshake: SP messages in both directions, in by
// its reader, out by its writer. The first error ends it.
//
// Our own roles use reader and writer themselves. Send and Recv are for the protocols
// of mangos, which know a connection by these only.
type pipe struct {
	conn net.Conn
	set  *settings
	in   *reader
	out  *writer
	ours bool // a role of ours has it
	peer peerInfo

	cause     atomic.Pointer[error]
	closeOnce sync.Once
	holders   atomic.Int32
	gone      func() // gives back the place in the listener
	dialed    bool   // there is none
	unwatch   func() // of a dialed one, see watch
}

// newPipe makes a pipe of conn; gone is nil for one that we dialed. A peer that we
// dialed may let our writes wait for as long as it likes: one that is slow on purpose
// (back-pressure) looks the same from here, and our callers' contexts bound what it
// costs them.
func newPipe(conn net.Conn, peer peerInfo, set *settings, gone func()) *pipe {
	p := &pipe{conn: conn, peer: peer, set: set, gone: gone, dialed: gone == nil}
	p.holders.Store(1) // the open connection; see hold
	raw := rawConn(conn)
	stall := set.stallTimeout
	if p.dialed || set.patient {
		stall = 0
	}
	p.in = newReader(conn, raw, set)
	p.out = newWriter(conn, raw, set.queueBytes, stall, set.stats, p.broken)
	return p
}

// broken is told of the first error of a write. The reader sees the closed connection.
func (p *pipe) broken(err error) {
	_ = p.fail(err)
	_ = p.conn.Close()
}

// hold keeps the pipe's place in its listener beyond Close, until release: a place
// covers the messages being handled too, else a peer could pile them up by
// connecting again and again.
func (p *pipe) hold() { p.holders.Add(1) }

func (p *pipe) release() {
	if p.holders.Add(-1) == 0 && !p.dialed {
		p.gone()
	}
}

// Recv returns the next message, for a protocol of mangos, which closes the pipe at
// the first error.
func (p *pipe) Recv() (*mangos.Message, error) {
	b, _, err := p.in.next()
	if err != nil {
		return nil, p.fail(err)
	}
	m := mangos.NewMessage(len(b))
	m.Body = append(m.Body, b...)
	return m, nil
}

// Send queues a message of a protocol of mangos, which sends one at a time, so that
// several leave together only when it does not wait for the system. It waits while
// the queue is full.
func (p *pipe) Send(m *mangos.Message) error {
	if _, err := p.out.send(context.Background(), time.Time{}, behind, m.Header, m.Body); err != nil {
		return p.fail(err)
	}
	m.Free() // and no more: stock protocols share a message among pipes
	return nil
}

// closeWrite tells the peer, after all that was written, that no more will come.
func (p *pipe) closeWrite() {
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

// hasEnded reports whether the pipe has ended, or is about to.
func (p *pipe) hasEnded() bool { return p.cause.Load() != nil }

// lingerTime is how long an orderly end waits for the peer.
const lingerTime = time.Second

// Close ends the connection and waits for the writer. What was written before still
// reaches the peer; what a protocol of mangos has sent is written first.
func (p *pipe) Close() error {
	p.closeOnce.Do(func() {
		if !p.ours {
			ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
			_ = p.out.drain(ctx)
			cancel()
		}
		closed := ErrClosed
		p.cause.CompareAndSwap(nil, &closed)
		p.out.close(p.endedBy())
		_ = p.conn.Close()
		p.out.wait()
		if p.unwatch != nil {
			p.unwatch()
		}
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
	case mangos.OptionTLSConnState:
		if p.peer.tls != nil {
			return *p.peer.tls, nil
		}
	case OptionPeerName:
		return p.peer.name, nil
	}
	return nil, mangos.ErrBadOption
}
