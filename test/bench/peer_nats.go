package main

import (
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// natsPeer is core NATS: a server in a process of its own, and a client on each
// side. Its limits for what is pending are raised, so that nothing is dropped.
type natsPeer struct{}

const natsSubject = "bench"

func (natsPeer) help(task) (string, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT,
		NoLog: true, NoSigs: true, MaxPending: 512 << 20})
	if err != nil {
		return "", err
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return "", errors.New("the NATS server does not start")
	}
	return s.ClientURL(), nil
}

func (natsPeer) receive(t task, s *sink) (string, error) {
	nc, err := nats.Connect(t.helper)
	if err != nil {
		return "", err
	}
	handle := func(m *nats.Msg) { m.Respond(m.Data) }
	if t.kind == oneWay {
		handle = func(m *nats.Msg) { s.take(m.Data) }
	}
	sub, err := nc.Subscribe(natsSubject, handle)
	if err != nil {
		return "", err
	}
	if err := sub.SetPendingLimits(-1, 1<<30); err != nil {
		return "", err
	}
	return t.helper, nc.Flush()
}

func (natsPeer) connect(t task) (sender, error) {
	nc, err := nats.Connect(t.receiver)
	if err != nil {
		return nil, err
	}
	return natsSender{nc}, nil
}

type natsSender struct{ *nats.Conn }

func (s natsSender) caller() (roundTrip, error) {
	return func(body []byte) ([]byte, error) {
		m, err := s.Request(natsSubject, body, 10*time.Second)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	}, nil
}

func (s natsSender) push(body []byte) error { return s.Publish(natsSubject, body) }
func (s natsSender) flush() error           { return s.FlushTimeout(time.Minute) }
func (s natsSender) close()                 { s.Close() }
