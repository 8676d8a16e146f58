package main

import (
	"context"

	"github.com/parley-mesh/parley/sp"
)

// spPeer is our own package sp as a user has it, with its default Config.
type spPeer struct{}

func (spPeer) receive(t task, s *sink) (string, error) {
	if t.kind == oneWay {
		p, err := sp.ListenPuller("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) { s.take(in.Body) }, sp.Config{})
		if err != nil {
			return "", err
		}
		return p.URL(), nil
	}
	r, err := sp.ListenReplier("tcp://127.0.0.1:0", func(_ context.Context, in sp.Inbound) []byte { return in.Body }, sp.Config{})
	if err != nil {
		return "", err
	}
	return r.URL(), nil
}

func (spPeer) connect(t task) (sender, error) {
	ctx := context.Background()
	if t.kind == oneWay {
		p, err := sp.DialPusher(ctx, t.receiver, sp.Config{})
		return spPusher{p}, err
	}
	r, err := sp.DialRequester(ctx, t.receiver, sp.Config{})
	return spRequester{r}, err
}

type spRequester struct{ *sp.Requester }

func (r spRequester) caller() (roundTrip, error) {
	return func(body []byte) ([]byte, error) { return r.Request(context.Background(), body) }, nil
}

func (r spRequester) push([]byte) error { return errNotHere }
func (r spRequester) flush() error      { return errNotHere }
func (r spRequester) close()            { r.Close() }

type spPusher struct{ *sp.Pusher }

func (p spPusher) caller() (roundTrip, error) { return nil, errNotHere }
func (p spPusher) push(body []byte) error     { return p.Send(context.Background(), body) }
func (p spPusher) flush() error               { return p.Drain(context.Background()) }
func (p spPusher) close()                     { p.Close() }
