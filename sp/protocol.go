package sp

import (
	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol"
)

// What the four roles say of themselves on the wire.
var (
	infoReq  = mangos.ProtocolInfo{Self: mangos.ProtoReq, Peer: mangos.ProtoRep, SelfName: "req", PeerName: "rep"}
	infoRep  = mangos.ProtocolInfo{Self: mangos.ProtoRep, Peer: mangos.ProtoReq, SelfName: "rep", PeerName: "req"}
	infoPush = mangos.ProtocolInfo{Self: mangos.ProtoPush, Peer: mangos.ProtoPull, SelfName: "push", PeerName: "pull"}
	infoPull = mangos.ProtocolInfo{Self: mangos.ProtoPull, Peer: mangos.ProtoPush, SelfName: "pull", PeerName: "push"}
)

// socketProtocol is the part of an SP protocol that mangos' core sees: it hands
// the connections to a role, which reads and writes them itself.
//
// mangos' own raw protocols would stand here if they could be bounded and counted:
// they share one queue, measured in messages, among all connections; xrep and
// xpull throw a received message away when its connection ends at that moment; and
// a message queued in xpush or xreq can be neither taken back nor awaited.
type socketProtocol struct {
	info   mangos.ProtocolInfo
	attach func(mangos.ProtocolPipe) error
	detach func(mangos.ProtocolPipe)
}

func (p *socketProtocol) Info() mangos.ProtocolInfo                  { return p.info }
func (p *socketProtocol) AddPipe(pp mangos.ProtocolPipe) error       { return p.attach(pp) }
func (p *socketProtocol) RemovePipe(pp mangos.ProtocolPipe)          { p.detach(pp) }
func (*socketProtocol) OpenContext() (mangos.ProtocolContext, error) { return nil, mangos.ErrProtoOp }
func (*socketProtocol) SendMsg(*mangos.Message) error                { return mangos.ErrProtoOp }
func (*socketProtocol) RecvMsg() (*mangos.Message, error)            { return nil, mangos.ErrProtoOp }
func (*socketProtocol) GetOption(string) (any, error)                { return nil, mangos.ErrBadOption }
func (*socketProtocol) SetOption(string, any) error                  { return mangos.ErrBadOption }
func (*socketProtocol) Close() error                                 { return nil }

func newSocket(p *socketProtocol) mangos.Socket {
	register()
	return protocol.MakeSocket(p)
}

// transportPipe is our pipe under one of the core's.
func transportPipe(pp mangos.ProtocolPipe) (*pipe, error) {
	if mp, ok := pp.(mangos.Pipe); ok {
		if v, err := mp.GetOption(optPipe); err == nil {
			if p, ok := v.(*pipe); ok {
				p.ours = true
				return p, nil
			}
		}
	}
	return nil, mangos.ErrBadTran
}
