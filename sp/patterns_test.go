package sp_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/bus"
	"go.nanomsg.org/mangos/v3/protocol/pair"
	"go.nanomsg.org/mangos/v3/protocol/pair1"
	"go.nanomsg.org/mangos/v3/protocol/pub"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	"go.nanomsg.org/mangos/v3/protocol/respondent"
	"go.nanomsg.org/mangos/v3/protocol/star"
	"go.nanomsg.org/mangos/v3/protocol/sub"
	"go.nanomsg.org/mangos/v3/protocol/surveyor"
	_ "go.nanomsg.org/mangos/v3/transport/tcp"
	_ "go.nanomsg.org/mangos/v3/transport/tlstcp"

	"github.com/parley-mesh/parley/sp"
)

// role is one end of a pattern.
type role struct {
	name  string
	open  func() (mangos.Socket, error)
	does  func(*end)
	peer  string // the role at the other end
	hears bool   // it receives
}

// Every role there is, played by mangos' own protocols.
var roles = []role{
	{"req", req.NewSocket, (*end).ask, "rep", true},
	{"rep", rep.NewSocket, (*end).answer, "req", true},
	{"push", push.NewSocket, (*end).say, "pull", false},
	{"pull", pull.NewSocket, (*end).listen, "push", true},
	{"pub", pub.NewSocket, (*end).say, "sub", false},
	{"sub", sub.NewSocket, (*end).listen, "pub", true},
	{"pair", pair.NewSocket, (*end).converse, "pair", true},
	{"pair1", pair1.NewSocket, (*end).converse, "pair1", true},
	{"bus", bus.NewSocket, (*end).converse, "bus", true},
	{"star", star.NewSocket, (*end).converse, "star", true},
	{"surveyor", surveyor.NewSocket, (*end).ask, "respondent", true},
	{"respondent", respondent.NewSocket, (*end).answer, "surveyor", true},
}

func roleNamed(name string) role {
	return roles[slices.IndexFunc(roles, func(r role) bool { return r.name == name })]
}

// end is a socket in a role. It says one thing and waits to hear another; until
// it is closed it goes on, for what is said before the other end is there is lost
// in some patterns.
type end struct {
	role
	sock mangos.Socket
	t    *testing.T
	says []byte
	want []byte

	heard chan struct{} // closed when it has heard what it wants
	once  sync.Once
	over  chan struct{}
	wg    sync.WaitGroup
}

func newEnd(t *testing.T, r role, says, want []byte) *end {
	t.Helper()
	sp.RegisterTransport()
	s, err := r.open()
	if err != nil {
		t.Fatal(err)
	}
	e := &end{role: r, sock: s, t: t, says: says, want: want, heard: make(chan struct{}), over: make(chan struct{})}
	t.Cleanup(e.close)
	switch r.name {
	case "sub":
		err = s.SetOption(mangos.OptionSubscribe, "")
	case "surveyor":
		err = s.SetOption(mangos.OptionSurveyTime, 200*time.Millisecond)
	case "req":
		err = s.SetOption(mangos.OptionRetryTime, time.Duration(0))
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// start begins the conversation.
func (e *end) start() { e.wg.Go(func() { e.does(e) }) }

func (e *end) close() {
	e.once.Do(func() { close(e.over) })
	_ = e.sock.Close()
	e.wg.Wait()
}

func (e *end) done() bool {
	select {
	case <-e.over:
		return true
	default:
		return false
	}
}

// send reports whether the message is on its way.
func (e *end) send() bool {
	err := e.sock.Send(e.says)
	switch {
	case err == nil:
		return true
	case errors.Is(err, mangos.ErrClosed), errors.Is(err, mangos.ErrProtoState):
	default:
		e.t.Errorf("%s: send: %v", e.name, err)
	}
	return false
}

// recv reports whether a message came.
func (e *end) recv() bool {
	b, err := e.sock.Recv()
	switch {
	case err == nil:
	case errors.Is(err, mangos.ErrClosed), errors.Is(err, mangos.ErrProtoState):
		return false // also a survey that nobody answered
	default:
		e.t.Errorf("%s: receive: %v", e.name, err)
		return false
	}
	if !bytes.Equal(b, e.want) {
		e.t.Errorf("%s heard %d bytes, %.20q, not %d bytes, %.20q", e.name, len(b), b, len(e.want), e.want)
		return false
	}
	select {
	case <-e.heard:
	default:
		close(e.heard)
	}
	return true
}

func (e *end) ask() {
	for !e.done() {
		if e.send() {
			e.recv()
		}
		e.pause()
	}
}

func (e *end) answer() {
	for !e.done() {
		if e.recv() {
			e.send()
		}
	}
}

func (e *end) say() {
	for !e.done() && e.send() {
		e.pause()
	}
}

func (e *end) listen() {
	for !e.done() {
		e.recv()
	}
}

func (e *end) converse() {
	e.wg.Go(e.say)
	e.listen()
}

// pause is as long as one who speaks waits before it says the same again.
func (e *end) pause() {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.over:
	}
}

// withLog adds to the options of a transport of ours that it should be quiet.
func withLog(scheme string, options map[string]any) map[string]any {
	all := maps.Clone(options)
	if scheme == sp.Scheme || scheme == sp.SchemeTLS {
		if all == nil {
			all = make(map[string]any)
		}
		all[sp.OptionConfig] = quiet(sp.Config{})
	}
	return all
}

// bind listens at a free port, in the scheme, and returns its host:port.
func (e *end) bind(scheme string, options map[string]any) string {
	e.t.Helper()
	l, err := e.sock.NewListener(scheme+"://127.0.0.1:0", withLog(scheme, options))
	if err != nil {
		e.t.Fatal(err)
	}
	if err := l.Listen(); err != nil {
		e.t.Fatal(err)
	}
	return hostport(l.Address())
}

// dial goes on until there is somebody.
func (e *end) dial(scheme, addr string, options map[string]any) {
	e.t.Helper()
	d, err := e.sock.NewDialer(scheme+"://"+addr, withLog(scheme, options))
	if err != nil {
		e.t.Fatal(err)
	}
	for name, v := range map[string]any{
		mangos.OptionDialAsynch:       true,
		mangos.OptionReconnectTime:    20 * time.Millisecond,
		mangos.OptionMaxReconnectTime: 20 * time.Millisecond,
	} {
		if err := d.SetOption(name, v); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := d.Dial(); err != nil {
		e.t.Fatal(err)
	}
}

// waitHeard waits until it has heard what it wants, if it hears at all.
func (e *end) waitHeard() {
	e.t.Helper()
	if e.hears {
		wait(e.t, e.name+" hears", e.heard)
	}
}

// way is how two ends meet: the scheme and options of each.
type way struct {
	name              string
	listens, dials    string
	listener, dialing map[string]any
}

var plainWays = []way{
	{name: "we listen", listens: sp.Scheme, dials: "tcp"},
	{name: "we dial", listens: "tcp", dials: sp.Scheme},
	{name: "ours both", listens: sp.Scheme, dials: sp.Scheme},
}

// Every pattern over our transport, with mangos' own at the other end or ours.
func TestPatterns(t *testing.T) {
	for _, r := range roles {
		for size, text := range map[string]string{"empty": "", "small": "hello", "large": strings.Repeat("large ", 50_000)} {
			for _, w := range plainWays {
				t.Run(r.name+"/"+size+"/"+w.name, func(t *testing.T) {
					t.Parallel()
					w.meet(t, r, []byte(text))
				})
			}
		}
	}
}

// The same over TLS, both ends with certificates.
func TestPatternsOverTLS(t *testing.T) {
	ca := newAuthority(t)
	listener := map[string]any{mangos.OptionTLSConfig: ca.mutual("node1")}
	dialing := map[string]any{mangos.OptionTLSConfig: ca.mutual("node2")}
	dialing[mangos.OptionTLSConfig].(*tls.Config).ServerName = "node1"
	const stockTLS = "tls+tcp"
	for _, r := range roles {
		for _, w := range []way{
			{"we listen", sp.SchemeTLS, stockTLS, listener, dialing},
			{"we dial", stockTLS, sp.SchemeTLS, listener, dialing},
			{"ours both", sp.SchemeTLS, sp.SchemeTLS, listener, dialing},
		} {
			t.Run(r.name+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				w.meet(t, r, []byte(strings.Repeat("secret ", 50_000)))
			})
		}
	}
}

// meet lets a role that listens and its peer say the text to each other.
func (w way) meet(t *testing.T, r role, text []byte) {
	t.Helper()
	listens, dials := newEnd(t, r, text, text), newEnd(t, roleNamed(r.peer), text, text)
	dials.dial(w.dials, listens.bind(w.listens, w.listener), w.dialing)
	meet(listens, dials)
}

// meet lets ends talk until each has heard the other. The one that listens is closed
// last: mangos' own tcp has a data race when it is closed during a handshake.
func meet(listens *end, dial ...*end) {
	listens.start()
	for _, e := range dial {
		e.start()
	}
	listens.waitHeard()
	for _, e := range dial {
		e.waitHeard()
	}
	for _, e := range dial {
		e.close()
	}
	listens.close()
}

// One message goes out to many peers: each gets all of it.
func TestPatternsFanOut(t *testing.T) {
	for _, name := range []string{"pub", "bus", "star", "surveyor"} {
		for size, n := range map[string]int{"small": 10, "large": 300_000} {
			for _, w := range plainWays {
				t.Run(name+"/"+size+"/"+w.name, func(t *testing.T) {
					t.Parallel()
					text := bytes.Repeat([]byte("x"), n)
					listens := newEnd(t, roleNamed(name), text, text)
					addr := listens.bind(w.listens, w.listener)
					var dial []*end
					for range 5 {
						e := newEnd(t, roleNamed(listens.peer), text, text)
						e.dial(w.dials, addr, w.dialing)
						dial = append(dial, e)
					}
					meet(listens, dial...)
				})
			}
		}
	}
}

// What mangos keeps of a request for another try is not touched by the first.
func TestPatternsRequestIsSentAgain(t *testing.T) {
	ln := listenRaw(t)
	text := bytes.Repeat([]byte("again "), 20_000)
	e := newEnd(t, roleNamed("req"), text, nil)
	if err := e.sock.SetOption(mangos.OptionRetryTime, soon); err != nil {
		t.Fatal(err)
	}
	e.dial(sp.Scheme, ln.Addr().String(), nil)
	e.wg.Go(func() { e.send() }) // returns when there is a connection
	for try := range 3 {
		c := ln.accept(protoRep)
		b, err := c.recv()
		if err != nil || len(b) < 4 || !bytes.Equal(b[4:], text) {
			t.Fatalf("try %d: %d bytes, %v", try, len(b), err)
		}
		_ = c.Close() // instead of an answer
	}
}

// mangos dials again when the peer comes back.
func TestPatternsReconnect(t *testing.T) {
	text := []byte("hello")
	for _, name := range []string{"req", "push", "sub", "pair", "bus"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := hostport(freeURL(t))
			dials := newEnd(t, roleNamed(name), text, text)
			if name == "req" {
				_ = dials.sock.SetOption(mangos.OptionRetryTime, 50*time.Millisecond)
			}
			dials.dial(sp.Scheme, addr, nil)
			dials.start()
			for life := range 3 {
				listens := newEnd(t, roleNamed(dials.peer), text, text)
				if err := listens.sock.ListenOptions(sp.Scheme+"://"+addr, withLog(sp.Scheme, nil)); err != nil {
					t.Fatal(err)
				}
				listens.start()
				if listens.hears {
					wait(t, fmt.Sprintf("life %d hears", life), listens.heard)
				} else {
					dials.waitHeard()
				}
				listens.close()
			}
		})
	}
}

// mangos' limit of a received message is ours.
func TestPatternsMaxRecvSize(t *testing.T) {
	const limit = 100_000
	options := map[string]any{mangos.OptionMaxRecvSize: limit}
	for _, w := range []way{
		{name: "listener", listens: sp.Scheme, dials: "tcp", listener: options},
		{name: "dialer", listens: "tcp", dials: sp.Scheme, dialing: options},
	} {
		t.Run(w.name, func(t *testing.T) {
			a, b := stock(t, pair.NewSocket), stock(t, pair.NewSocket)
			la, lb := &end{t: t, sock: a}, &end{t: t, sock: b}
			listens, dials := la, lb
			lb.dial(w.dials, la.bind(w.listens, w.listener), w.dialing)
			from, to := dials, listens
			if w.dialing != nil {
				from, to = listens, dials
			}
			if err := from.sock.Send(make([]byte, limit)); err != nil {
				t.Fatal(err)
			}
			if got, err := to.sock.Recv(); err != nil || len(got) != limit {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if err := from.sock.Send(make([]byte, limit+1)); err != nil {
				t.Fatal(err)
			}
			// It is not delivered; what is said on the next connection is.
			go func() {
				for from.sock.Send([]byte("next")) == nil {
					time.Sleep(20 * time.Millisecond)
				}
			}()
			if got, err := to.sock.Recv(); err != nil || string(got) != "next" {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// Every pattern that the programs of NNG and nanomsg have, each of our roles and
// theirs, listening and dialing.
func TestPatternsWithForeignPrograms(t *testing.T) {
	eachCat(t, func(t *testing.T, c cat) {
		for _, r := range roles {
			flag := c.flag(r.peer)
			if flag == "" {
				continue
			}
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				ours := newEnd(t, r, []byte("from us"), []byte("from them"))
				c.meet(t, ours, flag, c.dial, "tcp://"+ours.bind(sp.Scheme, nil))
			})
			t.Run(r.name+" dials", func(t *testing.T) {
				t.Parallel()
				ours := newEnd(t, r, []byte("from us"), []byte("from them"))
				url := freeURL(t)
				ours.dial(sp.Scheme, hostport(url), nil)
				c.meet(t, ours, flag, c.listen, url)
			})
		}
	})
}

// flag is what a cat calls a role; "" when it does not play it.
func (c cat) flag(role string) string {
	switch {
	case role == "star", role == "pair1" && c.name == "nanocat", role == "bus" && c.name == "nngcat":
		return ""
	case role == "pair" && c.name == "nngcat":
		return "--pair0"
	}
	return "--" + role
}

// meet lets ours talk with a cat that dials or listens.
func (c cat) meet(t *testing.T, ours *end, flag, how, url string) {
	t.Helper()
	ours.start()
	args := []string{flag, how, url}
	if roleNamed(ours.peer).hears {
		args = append(args, "--ascii")
	}
	switch ours.peer {
	case "pull", "sub":
	case "rep", "respondent":
		args = append(args, "--data", "from them")
	default:
		args = append(args, "--data", "from them", "--interval", "1")
	}
	output, _ := c.run(t, args...)
	ours.waitHeard()
	if roleNamed(ours.peer).hears {
		eventually(t, "it prints what we say", func() bool { return strings.Contains(output(), "from us") })
	}
}
