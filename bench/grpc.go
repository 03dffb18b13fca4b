package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/owtp-go/owtp/bench/benchpb"
)

const (
	grpcService = "owtp.bench.Echo"
	grpcWindow  = 4 << 20
	grpcMessage = 16 << 20

	grpcSetting = "one connection; stream workers = processors; shared write buffers; windows 4 MiB, fixed; no interceptors, no stats; echo of a Protobuf message, raw octets in a BytesValue"
)

// protoOf is the message that carries a value, and an empty one for the answer.
// Octets go into a field of bytes, the least that a Protobuf call can do.
func protoOf(v any) (in proto.Message, answer func() proto.Message) {
	if octets, ok := v.([]byte); ok {
		return wrapperspb.Bytes(octets), func() proto.Message { return new(wrapperspb.BytesValue) }
	}
	return v.(proto.Message), func() proto.Message { return new(benchpb.Payload) }
}

// ofProto is the value that a message carries.
func ofProto(m proto.Message) any {
	if b, ok := m.(*wrapperspb.BytesValue); ok {
		return b.Value
	}
	return m
}

// grpcEcho is what generated code would register.
func grpcEcho(answer func() proto.Message) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: grpcService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := answer()
			return m, decode(m)
		},
	}}}
}

func openGRPC(secure bool) func(context.Context, *env, job) (*line, error) {
	return func(_ context.Context, e *env, j job) (*line, error) {
		onServer, onClient := insecure.NewCredentials(), insecure.NewCredentials()
		if secure {
			pair, err := e.certificate()
			if err != nil {
				return nil, err
			}
			onServer, onClient = credentials.NewTLS(pair.server), credentials.NewTLS(pair.client)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		in, answer := protoOf(j.value)
		server := grpc.NewServer(grpc.Creds(onServer), grpc.NumStreamWorkers(uint32(runtime.GOMAXPROCS(0))), grpc.SharedWriteBuffer(true),
			grpc.StaticStreamWindowSize(grpcWindow), grpc.StaticConnWindowSize(grpcWindow), grpc.MaxRecvMsgSize(grpcMessage))
		server.RegisterService(grpcEcho(answer), nil)
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(onClient), grpc.WithSharedWriteBuffer(true),
			grpc.WithStaticStreamWindowSize(grpcWindow), grpc.WithStaticConnWindowSize(grpcWindow),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(grpcMessage), grpc.StaticMethod()))
		if err != nil {
			server.Stop()
			return nil, err
		}
		call := func(ctx context.Context, _ int) error {
			out := answer()
			if err := conn.Invoke(ctx, "/"+grpcService+"/Echo", in, out); err != nil {
				return err
			}
			if !sameSize(ofProto(out), j.value) {
				return errAnswer
			}
			return nil
		}
		return &line{call, func() {
			conn.Close()
			server.Stop()
			<-done
		}}, nil
	}
}

const connectSetting = "HTTP/2 without TLS, one connection; binary Protobuf; no compression, no interceptors"

// openConnect has the messages' types at compile time, as connect wants them.
func openConnect(ctx context.Context, e *env, j job) (*line, error) {
	if j.format == formatRaw {
		return connectLine[wrapperspb.BytesValue](j)
	}
	return connectLine[benchpb.Payload](j)
}

func connectLine[M any](j job) (*line, error) {
	in, _ := protoOf(j.value)
	request, ok := any(in).(*M)
	if !ok {
		return nil, fmt.Errorf("connect: a %T is no %T", in, request)
	}
	const path = "/" + grpcService + "/Echo"
	mux := http.NewServeMux()
	mux.Handle(path, connect.NewUnaryHandler(path, func(_ context.Context, r *connect.Request[M]) (*connect.Response[M], error) {
		return connect.NewResponse(r.Msg), nil
	}))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 4096, MaxReadFrameSize: 1 << 20,
		MaxReceiveBufferPerConnection: grpcWindow, MaxReceiveBufferPerStream: grpcWindow}}
	address, stop, err := serveHTTP(server)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Protocols: protocols, DisableCompression: true, HTTP2: server.HTTP2}
	client := connect.NewClient[M, M](&http.Client{Transport: transport}, "http://"+address+path, connect.WithAcceptCompression("gzip", nil, nil))
	call := func(ctx context.Context, _ int) error {
		out, err := client.CallUnary(ctx, connect.NewRequest(request))
		if err != nil {
			return err
		}
		if !sameSize(ofProto(any(out.Msg).(proto.Message)), j.value) {
			return errAnswer
		}
		return nil
	}
	return &line{call, func() {
		transport.CloseIdleConnections()
		stop()
	}}, nil
}

// serveHTTP serves on loopback.
func serveHTTP(s *http.Server) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return l.Addr().String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		_ = s.Close()
		<-done
	}, nil
}
