package sp

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// foreignConn makes a pipe of another mangos transport (inproc, ipc, ws) look like a
// connection that carries SP frames, so that the same reader and writer work on it.
// Messages are all that such a transport knows, and its calls end with the pipe only.
// So a message that is read is there as a whole; one that is written is handed on when
// its last byte is, and of one that is cut nothing is. Deadlines for reading are as
// everywhere; a deadline for writing that passes while a message is being handed on
// ends the connection. Why a pipe ended the transport does not say: the end reads as
// io.EOF, after the message that was taken last.
func foreignConn(pp mangos.ProtocolPipe) net.Conn {
	c := &foreignStream{
		pp: pp, messages: make(chan *mangos.Message), ended: make(chan struct{}), closed: make(chan struct{}),
		readBy: make(chan struct{}),
	}
	c.local, c.remote = foreignAddrs(pp)
	go c.receive()
	return c
}

// foreignStream is what foreignConn returns. One goroutine may read, one may write.
type foreignStream struct {
	pp            mangos.ProtocolPipe
	local, remote net.Addr
	messages      chan *mangos.Message
	ended         chan struct{} // by receive: there will be no more
	closed        chan struct{} // by Close
	closing       sync.Once
	finished      atomic.Bool // by CloseWrite

	in     *mangos.Message // being read
	length [lengthSize]byte
	inAt   int // read of its length, its header and its body

	out     *mangos.Message // being written
	outLen  [lengthSize]byte
	outAt   int // written of its length
	outLeft int // not yet written of it

	mu         sync.Mutex
	readTimer  *time.Timer
	readBy     chan struct{} // closed when the deadline for reading has passed
	writeTimer *time.Timer
	writeLate  bool // the deadline for writing has passed
	handing    bool // a message is being handed on
}

// receive is the goroutine that takes messages from the transport, one ahead of the
// reader. It ends with the pipe.
func (c *foreignStream) receive() {
	defer close(c.ended)
	for {
		m := c.pp.RecvMsg()
		if m == nil {
			return
		}
		select {
		case c.messages <- m:
		case <-c.closed:
			m.Free()
			return
		}
	}
}

func (c *foreignStream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if c.in == nil {
		if err := c.await(); err != nil {
			return 0, err
		}
	}
	total := 0
	at := c.inAt
	for _, part := range [...][]byte{c.length[:], c.in.Header, c.in.Body} {
		if at >= len(part) {
			at -= len(part)
			continue
		}
		n := copy(b[total:], part[at:])
		total += n
		if at += n; at < len(part) {
			break
		}
		at = 0
	}
	c.inAt += total
	if c.inAt == lengthSize+len(c.in.Header)+len(c.in.Body) {
		c.in.Pipe = nil
		c.in.Free()
		c.in = nil
	}
	return total, nil
}

// await waits for the next message.
func (c *foreignStream) await() error {
	c.mu.Lock()
	late := c.readBy
	c.mu.Unlock()
	select { // first, lest a message passes
	case <-c.closed:
		return c.endedBy()
	case <-late:
		return os.ErrDeadlineExceeded
	default:
	}
	select {
	case m := <-c.messages:
		c.in, c.inAt = m, 0
		binary.BigEndian.PutUint64(c.length[:], uint64(len(m.Header)+len(m.Body)))
		return nil
	case <-c.ended:
		if c.isClosed() {
			return c.endedBy()
		}
		return io.EOF
	case <-c.closed:
		return c.endedBy()
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

// Write cuts the stream back into messages and hands on those that are complete. The
// bytes of one that cannot be are not counted as written.
func (c *foreignStream) Write(b []byte) (int, error) {
	total := 0
	for total < len(b) {
		if c.out == nil {
			n := copy(c.outLen[c.outAt:], b[total:])
			total += n
			if c.outAt += n; c.outAt < lengthSize {
				break
			}
			c.outAt = 0
			size := binary.BigEndian.Uint64(c.outLen[:])
			if size > HardMaxMessage+maxHops*wordSize { // not by our writer
				_ = c.Close()
				return total - n, oversized(size, HardMaxMessage)
			}
			c.out, c.outLeft = mangos.NewMessage(int(size)), int(size)
		}
		n := min(c.outLeft, len(b)-total)
		c.out.Body = append(c.out.Body, b[total:total+n]...)
		if c.outLeft -= n; c.outLeft == 0 {
			m := c.out
			c.out = nil
			if err := c.hand(m); err != nil {
				m.Free()
				if n == 0 { // it is all length
					total--
				}
				return total, err
			}
		}
		total += n
	}
	return total, nil
}

// hand hands a message on, until the deadline for writing.
func (c *foreignStream) hand(m *mangos.Message) error {
	c.mu.Lock()
	if c.writeLate {
		c.mu.Unlock()
		return os.ErrDeadlineExceeded
	}
	c.handing = true
	c.mu.Unlock()
	err := c.pp.SendMsg(m)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handing = false
	switch {
	case err != nil && c.writeLate:
		return os.ErrDeadlineExceeded
	case err == mangos.ErrClosed:
		return net.ErrClosed
	}
	return err
}

// Close closes the pipe. It does not wait for mangos' core, which may be what calls us,
// and would wait for us.
func (c *foreignStream) Close() error {
	c.closing.Do(func() {
		c.mu.Lock()
		close(c.closed)
		stop(c.readTimer)
		stop(c.writeTimer)
		c.mu.Unlock()
		go func() { _ = c.pp.Close() }()
	})
	return nil
}

// CloseWrite is a Close that the reader takes for the peer's, for such a transport has
// no half of an end: the peer gets what was written, and nobody hears that it did.
func (c *foreignStream) CloseWrite() error {
	c.finished.Store(true)
	return c.Close()
}

// endedBy is what a closed connection says to its reader.
func (c *foreignStream) endedBy() error {
	if c.finished.Load() {
		return io.EOF
	}
	return net.ErrClosed
}

func (c *foreignStream) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

func (c *foreignStream) LocalAddr() net.Addr  { return c.local }
func (c *foreignStream) RemoteAddr() net.Addr { return c.remote }

func (c *foreignStream) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *foreignStream) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop(c.readTimer)
	c.readTimer = nil
	select {
	case <-c.readBy:
		c.readBy = make(chan struct{})
	default:
	}
	switch d := time.Until(t); {
	case t.IsZero() || c.isClosed():
	case d <= 0:
		close(c.readBy)
	default:
		var timer *time.Timer
		timer = time.AfterFunc(d, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.readTimer == timer {
				c.readTimer = nil
				close(c.readBy)
			}
		})
		c.readTimer = timer
	}
	return nil
}

func (c *foreignStream) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop(c.writeTimer)
	c.writeTimer, c.writeLate = nil, false
	if t.IsZero() || c.isClosed() {
		return nil
	}
	d := time.Until(t)
	if d <= 0 && !c.handing {
		c.writeLate = true
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		c.mu.Lock()
		late := c.writeTimer == timer
		if late {
			c.writeTimer, c.writeLate = nil, true
		}
		late = late && c.handing
		c.mu.Unlock()
		if late {
			_ = c.Close()
		}
	})
	c.writeTimer = timer
	return nil
}

// foreignAddr is the address of a pipe whose transport gives none.
type foreignAddr struct{ url string }

func (foreignAddr) Network() string  { return "sp" }
func (a foreignAddr) String() string { return a.url }

func foreignAddrs(pp mangos.ProtocolPipe) (local, remote net.Addr) {
	local, remote = foreignAddr{}, foreignAddr{}
	p, ok := pp.(mangos.Pipe)
	if !ok {
		return local, remote
	}
	local = foreignAddr{p.Address()}
	remote = local
	if v, err := p.GetOption(mangos.OptionLocalAddr); err == nil {
		if a, ok := v.(net.Addr); ok {
			local = a
		}
	}
	if v, err := p.GetOption(mangos.OptionRemoteAddr); err == nil {
		if a, ok := v.(net.Addr); ok {
			remote = a
		}
	}
	return local, remote
}

// foreignTLS is the TLS state of a pipe of another transport, if it has one.
func foreignTLS(pp mangos.ProtocolPipe) *tls.ConnectionState {
	p, ok := pp.(mangos.Pipe)
	if !ok {
		return nil
	}
	v, err := p.GetOption(mangos.OptionTLSConnState)
	if err != nil {
		return nil
	}
	state, ok := v.(tls.ConnectionState)
	if !ok {
		return nil
	}
	return &state
}
