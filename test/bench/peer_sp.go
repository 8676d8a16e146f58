package main

import (
	"context"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// spPeer is our own package sp with its default Config, but for poll. It is used as
// callers use it who count allocations: replies are appended to memory used again.
type spPeer struct{ poll time.Duration }

func (p spPeer) config() sp.Config { return sp.Config{Poll: p.poll} }

func (p spPeer) receive(t task, s *sink) (string, error) {
	if t.kind == oneWay {
		l, err := sp.ListenPuller("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) { s.take(in.Body) }, p.config())
		if err != nil {
			return "", err
		}
		return l.URL(), nil
	}
	l, err := sp.ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) []byte { return in.Body }, p.config())
	if err != nil {
		return "", err
	}
	return l.URL(), nil
}

func (p spPeer) connect(t task) (sender, error) {
	ctx := context.Background()
	if t.kind == oneWay {
		push, err := sp.DialPusher(ctx, t.receiver, p.config())
		return spPusher{push}, err
	}
	req, err := sp.DialRequester(ctx, t.receiver, p.config())
	return spRequester{req}, err
}

type spRequester struct{ *sp.Requester }

func (r spRequester) caller() (roundTrip, error) {
	x := &sp.Exchange{}
	return func(body []byte) ([]byte, error) {
		x.Body, x.Reply = body, x.Reply[:0]
		err := r.Do(context.Background(), x)
		return x.Reply, err
	}, nil
}

func (r spRequester) push([]byte) error { return errNotHere }
func (r spRequester) flush() error      { return errNotHere }
func (r spRequester) close()            { r.Close() }

type spPusher struct{ *sp.Pusher }

func (p spPusher) caller() (roundTrip, error) { return nil, errNotHere }
func (p spPusher) push(body []byte) error     { return p.Send(context.Background(), body) }
func (p spPusher) flush() error               { return p.Drain(context.Background()) }
func (p spPusher) close()                     { p.Close() }
