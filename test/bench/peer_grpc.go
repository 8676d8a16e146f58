package main

import (
	"context"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// grpcPeer is gRPC without TLS: unary calls for requests, a client's stream for one-way
// messages. Its codec hands bytes through, so that no protobuf is in the figures.
type grpcPeer struct{}

type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

var grpcPush = grpc.StreamDesc{StreamName: "Push", ClientStreams: true}

func (grpcPeer) receive(_ task, s *sink) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	push := grpcPush
	push.Handler = func(_ any, stream grpc.ServerStream) error {
		for {
			var body []byte
			switch err := stream.RecvMsg(&body); err {
			case nil:
				s.take(body)
			case io.EOF:
				return nil
			default:
				return err
			}
		}
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				body := new([]byte)
				return body, decode(body)
			}}},
		Streams: []grpc.StreamDesc{push},
	}, struct{}{})
	go srv.Serve(l)
	return l.Addr().String(), nil
}

func (grpcPeer) connect(t task) (sender, error) {
	conn, err := grpc.NewClient(t.receiver, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		return nil, err
	}
	s := &grpcSender{conn: conn}
	if t.kind == oneWay {
		s.stream, err = conn.NewStream(context.Background(), &grpcPush, "/bench/Push")
	}
	return s, err
}

type grpcSender struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
}

func (s *grpcSender) caller() (roundTrip, error) {
	return func(body []byte) (reply []byte, err error) {
		err = s.conn.Invoke(context.Background(), "/bench/Echo", &body, &reply)
		return reply, err
	}, nil
}

func (s *grpcSender) push(body []byte) error { return s.stream.SendMsg(&body) }
func (s *grpcSender) flush() error           { return nil }
func (s *grpcSender) close()                 { s.conn.Close() }
