package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	udpReceiveBuffer = 2 << 20 // bytes, asked of the kernel
	maxDatagram      = 64 << 10
	maxStreams       = 512 // inbound streams at once; more are closed and counted
	portAttempts     = 16  // to find one number that is free for both TCP and UDP
)

// transport is memberlist's way to the network, and the one place where what
// comes from strangers can be limited before memberlist sees it.
//
// It is not memberlist's own NetTransport because that one hands out slices of
// a 64 KiB buffer made anew for each datagram, loses the identity of listen
// errors, and lets nobody end a stream: here every connection is known, so that
// Shutdown ends them all, and one that was dialled for a call ends with that
// call's context.
//
// Two goroutines, accept and receive; Shutdown ends them and waits.
type transport struct {
	log       *slog.Logger
	cut       func(to netip.AddrPort) bool
	tcp       *net.TCPListener
	udp       *net.UDPConn
	bound     netip.AddrPort
	advertise netip.AddrPort

	packets chan *memberlist.Packet
	streams chan net.Conn
	refused atomic.Uint64 // streams over the limit

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	conns   map[*stream]struct{}
	inbound int
	calls   map[string]*call
	serial  uint64
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// listen opens the TCP and UDP port. advertise with port 0 gets the bound port.
func listen(bind, advertise netip.AddrPort, log *slog.Logger, cut func(netip.AddrPort) bool) (*transport, error) {
	tcp, udp, err := listenBoth(bind)
	if err != nil {
		return nil, fmt.Errorf("cluster: listen on %v: %w", bind, explainListen(bind, err))
	}
	_ = udp.SetReadBuffer(udpReceiveBuffer) // less is only slower
	port := uint16(tcp.Addr().(*net.TCPAddr).Port)
	if advertise.Port() == 0 {
		advertise = netip.AddrPortFrom(advertise.Addr(), port)
	}
	t := &transport{
		log: log, cut: cut, tcp: tcp, udp: udp,
		bound:     netip.AddrPortFrom(bind.Addr(), port),
		advertise: advertise,
		packets:   make(chan *memberlist.Packet),
		streams:   make(chan net.Conn),
		conns:     make(map[*stream]struct{}),
		calls:     make(map[string]*call),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	t.wg.Go(t.receive)
	return t, nil
}

func listenBoth(bind netip.AddrPort) (*net.TCPListener, *net.UDPConn, error) {
	var last error
	for range portAttempts {
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
		if err != nil {
			return nil, nil, err
		}
		port := uint16(tcp.Addr().(*net.TCPAddr).Port)
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(bind.Addr(), port)))
		if err == nil {
			return tcp, udp, nil
		}
		_ = tcp.Close()
		if last = err; bind.Port() != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, nil, last
}

// explainListen adds what to do.
func explainListen(bind netip.AddrPort, err error) error {
	var op *net.OpError
	network := "TCP"
	if errors.As(err, &op) {
		if op.Net == "udp" {
			network = "UDP"
		}
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: %s port %d belongs to another process; stop it, or choose another port or port 0", err, network, bind.Port())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: %v is no address of this machine; listen on one, or on 0.0.0.0 and advertise it", err, bind.Addr())
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need privileges", err)
	}
	return fmt.Errorf("%s: %w", network, err)
}

// accept hands inbound streams to memberlist.
func (t *transport) accept() {
	for pause := time.Duration(0); ; {
		conn, err := t.tcp.AcceptTCP()
		if err != nil {
			if pause = min(max(2*pause, 5*time.Millisecond), time.Second); !t.rest(pause) {
				return
			}
			t.log.Warn("cannot accept gossip streams", "err", err)
			continue
		}
		pause = 0
		s := t.track(conn, nil, true)
		if s == nil {
			continue
		}
		select {
		case t.streams <- s:
		case <-t.ctx.Done():
			_ = s.Close()
			return
		}
	}
}

// receive hands datagrams to memberlist, each in a slice of its own size:
// memberlist may keep thousands of them queued.
func (t *transport) receive() {
	buf := make([]byte, maxDatagram)
	for pause := time.Duration(0); ; {
		size, from, err := t.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if pause = min(max(2*pause, time.Millisecond), time.Second); !t.rest(pause) {
				return
			}
			continue // on some systems the news of an earlier send that was refused
		}
		pause = 0
		if size == 0 {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		packet := &memberlist.Packet{
			Buf:       append([]byte(nil), buf[:size]...),
			From:      net.UDPAddrFromAddrPort(from),
			Timestamp: time.Now(),
		}
		select {
		case t.packets <- packet:
		case <-t.ctx.Done():
			return
		}
	}
}

// rest sleeps and reports whether to go on.
func (t *transport) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// call is an exchange that was begun here, beside memberlist's own.
type call struct {
	ctx     context.Context
	name    string // under which memberlist asks for the connection
	dialErr error  // as it was, before memberlist made a text of it
}

// begin registers a call. memberlist takes no context, but it hands the name of
// whom it connects to back to its transport: the call's name stands there. end
// must follow.
func (t *transport) begin(ctx context.Context) (c *call, end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serial++
	c = &call{ctx: ctx, name: "call-" + strconv.FormatUint(t.serial, 10)}
	t.calls[c.name] = c
	return c, func() {
		t.mu.Lock()
		delete(t.calls, c.name)
		t.mu.Unlock()
	}
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	t.mu.Lock()
	c := t.calls[a.Name]
	t.mu.Unlock()
	ctx := t.ctx
	if c != nil {
		ctx = c.ctx
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()

	if to, err := netip.ParseAddrPort(a.Addr); err == nil && t.cut != nil && t.cut(to) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", a.Addr)
	if err != nil {
		if c != nil {
			c.dialErr = err
		}
		return nil, err
	}
	s := t.track(conn, c, false)
	if s == nil {
		return nil, net.ErrClosed
	}
	return s, nil
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	if t.cut != nil && t.cut(to) {
		return time.Now(), nil
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// FinalAdvertiseAddr implements memberlist.Transport. What memberlist was
// configured with does not matter.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.advertise.Addr().AsSlice()), int(t.advertise.Port()), nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// Shutdown implements memberlist.Transport: it ends all connections and waits
// for the goroutines. It may be called twice.
func (t *transport) Shutdown() error {
	t.cancel()
	_ = t.tcp.Close()
	_ = t.udp.Close()
	t.mu.Lock()
	t.closed = true
	open := make([]*stream, 0, len(t.conns))
	for s := range t.conns {
		open = append(open, s)
	}
	t.mu.Unlock()
	for _, s := range open {
		_ = s.Close()
	}
	t.wg.Wait()
	return nil
}

// stream is a connection that Shutdown and its call's context can end.
type stream struct {
	net.Conn
	t       *transport
	inbound bool
	stop    func() bool // of the context's hold on it
}

// track returns nil when conn had to be closed.
func (t *transport) track(conn net.Conn, c *call, inbound bool) *stream {
	s := &stream{Conn: conn, t: t, inbound: inbound, stop: func() bool { return true }}
	if c != nil {
		s.stop = context.AfterFunc(c.ctx, func() { _ = conn.Close() })
	}
	t.mu.Lock()
	full := inbound && t.inbound >= maxStreams
	if t.closed || full {
		t.mu.Unlock()
		if full {
			t.refused.Add(1)
		}
		s.stop()
		_ = conn.Close()
		return nil
	}
	t.conns[s] = struct{}{}
	if inbound {
		t.inbound++
	}
	t.mu.Unlock()
	return s
}

func (s *stream) Close() error {
	s.stop()
	s.t.mu.Lock()
	if _, known := s.t.conns[s]; known {
		delete(s.t.conns, s)
		if s.inbound {
			s.t.inbound--
		}
	}
	s.t.mu.Unlock()
	return s.Conn.Close()
}
