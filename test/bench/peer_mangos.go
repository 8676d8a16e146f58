package main

import (
	"github.com/parley-mesh/parley/sp"
	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	_ "go.nanomsg.org/mangos/v3/transport/tcp"
)

// mangosPeer is mangos as it comes, over its own tcp transport or over ours: its messages
// are pooled and not copied, and requests have a context for each caller on both sides.
type mangosPeer struct{ scheme string }

func (p mangosPeer) receive(t task, s *sink) (string, error) {
	if t.kind == oneWay {
		sock, err := pull.NewSocket()
		if err != nil {
			return "", err
		}
		addr, err := p.listen(sock)
		if err != nil {
			return "", err
		}
		go func() {
			for {
				m, err := sock.RecvMsg()
				if err != nil {
					return
				}
				s.take(m.Body)
				m.Free()
			}
		}()
		return addr, nil
	}
	sock, err := rep.NewSocket()
	if err != nil {
		return "", err
	}
	for range t.outstanding {
		ctx, err := sock.OpenContext()
		if err != nil {
			return "", err
		}
		go func() {
			for {
				m, err := ctx.RecvMsg()
				if err != nil {
					return
				}
				if ctx.SendMsg(m) != nil {
					m.Free()
				}
			}
		}()
	}
	return p.listen(sock)
}

func (p mangosPeer) listen(sock mangos.Socket) (string, error) {
	sp.RegisterTransport()
	l, err := sock.NewListener(p.scheme+"://127.0.0.1:0", nil)
	if err != nil {
		return "", err
	}
	if err := l.Listen(); err != nil {
		return "", err
	}
	return l.Address(), nil
}

func (mangosPeer) connect(t task) (sender, error) {
	open := req.NewSocket
	if t.kind == oneWay {
		open = push.NewSocket
	}
	sock, err := open()
	if err != nil {
		return nil, err
	}
	sp.RegisterTransport()
	return mangosSender{sock}, sock.Dial(t.receiver)
}

type mangosSender struct{ mangos.Socket }

func mangosMessage(body []byte) *mangos.Message {
	m := mangos.NewMessage(len(body))
	m.Body = append(m.Body, body...)
	return m
}

func (s mangosSender) caller() (roundTrip, error) {
	ctx, err := s.OpenContext()
	if err != nil {
		return nil, err
	}
	var last *mangos.Message
	return func(body []byte) ([]byte, error) {
		if last != nil {
			last.Free()
			last = nil
		}
		if err := ctx.SendMsg(mangosMessage(body)); err != nil {
			return nil, err
		}
		if last, err = ctx.RecvMsg(); err != nil {
			last = nil
			return nil, err
		}
		return last.Body, nil
	}, nil
}

func (s mangosSender) push(body []byte) error { return s.SendMsg(mangosMessage(body)) }
func (s mangosSender) flush() error           { return nil }
func (s mangosSender) close()                 { s.Close() }
