package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/rpc"
	"sync"

	"github.com/coder/websocket"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	gorilla "github.com/gorilla/websocket"
)

// wideTransport keeps a connection for each caller.
func wideTransport(callers int) *http.Transport {
	return &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: max(callers, offeredCallers), DisableCompression: true}
}

const netHTTPSetting = "HTTP/1.1, a pooled connection for each caller; encoding/json to and from a json.RawMessage on both sides"

func openNetHTTP(_ context.Context, _ *env, j job) (*line, error) {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var v json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client notices
	})}
	address, stop, err := serveHTTP(server)
	if err != nil {
		return nil, err
	}
	transport := wideTransport(j.callers)
	client := &http.Client{Transport: transport}
	call := func(ctx context.Context, _ int) error {
		body, err := json.Marshal(j.value)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var v json.RawMessage
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			return err
		}
		// The line's end stands behind the value; unread, it would cost the
		// connection.
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if !sameSize(v, j.value) {
			return errAnswer
		}
		return nil
	}
	return &line{call, func() {
		transport.CloseIdleConnections()
		stop()
	}}, nil
}

const bareWSSetting = "the library that this one uses, without compression; a connection for each caller, since a bare echo has no numbers; the payload's format work on both sides"

const bareWSMessage = 16 << 20

func openBareWS(ctx context.Context, _ *env, j job) (*line, error) {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(bareWSMessage)
		for {
			kind, data, err := c.Read(context.Background())
			if err != nil {
				return
			}
			v, err := j.format.decode(data)
			if err != nil {
				return
			}
			if data, err = j.format.encode(v); err != nil {
				return
			}
			if err := c.Write(context.Background(), kind, data); err != nil {
				return
			}
		}
	})}
	address, stop, err := serveHTTP(server)
	if err != nil {
		return nil, err
	}
	conns := make([]*websocket.Conn, j.callers)
	closeAll := func() {
		for _, c := range conns {
			if c != nil {
				c.CloseNow()
			}
		}
		stop()
	}
	for i := range conns {
		c, _, err := websocket.Dial(ctx, "ws://"+address+"/", &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			closeAll()
			return nil, err
		}
		c.SetReadLimit(bareWSMessage)
		conns[i] = c
	}
	call := func(ctx context.Context, caller int) error {
		data, err := j.format.encode(j.value)
		if err != nil {
			return err
		}
		c := conns[caller]
		if err := c.Write(ctx, websocket.MessageBinary, data); err != nil {
			return err
		}
		if _, data, err = c.Read(ctx); err != nil {
			return err
		}
		v, err := j.format.decode(data)
		if err == nil && !sameSize(v, j.value) {
			err = errAnswer
		}
		return err
	}
	return &line{call, closeAll}, nil
}

// gethService is registered as "bench": its method is bench_echo.
type gethService struct{}

func (gethService) Echo(v json.RawMessage) json.RawMessage { return v }

const (
	gethWSSetting   = "one connection, socket buffers 64 KiB; parameter and result a json.RawMessage"
	gethHTTPSetting = "HTTP/1.1, a pooled connection for each caller; parameter and result a json.RawMessage"
	gethMessage     = 32 << 20
)

func openGeth(overWS bool) func(context.Context, *env, job) (*line, error) {
	return func(ctx context.Context, _ *env, j job) (*line, error) {
		handler := gethrpc.NewServer()
		if err := handler.RegisterName("bench", gethService{}); err != nil {
			return nil, err
		}
		handler.SetHTTPBodyLimit(gethMessage)
		server := &http.Server{Handler: handler}
		if overWS {
			server.Handler = handler.WebsocketHandler([]string{"*"})
		}
		address, stop, err := serveHTTP(server)
		if err != nil {
			return nil, err
		}
		transport := wideTransport(j.callers)
		url, option := "http://"+address, gethrpc.WithHTTPClient(&http.Client{Transport: transport})
		if overWS {
			url, option = "ws://"+address, gethrpc.WithWebsocketDialer(gorilla.Dialer{ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10})
		}
		client, err := gethrpc.DialOptions(ctx, url, option, gethrpc.WithWebsocketMessageSizeLimit(gethMessage))
		if err != nil {
			stop()
			return nil, err
		}
		call := func(ctx context.Context, _ int) error {
			var out json.RawMessage
			if err := client.CallContext(ctx, &out, "bench_echo", j.value); err != nil {
				return err
			}
			if !sameSize(out, j.value) {
				return errAnswer
			}
			return nil
		}
		return &line{call, func() {
			client.Close()
			transport.CloseIdleConnections()
			handler.Stop()
			stop()
		}}, nil
	}
}

// NetRPC is the name of net/rpc's service.
type NetRPC struct{}

// Echo is in the form that net/rpc wants.
func (NetRPC) Echo(in []byte, out *[]byte) error {
	*out = in
	return nil
}

const netRPCSetting = "one TCP connection, gob"

func openNetRPC(_ context.Context, _ *env, j job) (*line, error) {
	conn, accepted, err := tcpPair()
	if err != nil {
		return nil, err
	}
	server := rpc.NewServer()
	if err := server.Register(NetRPC{}); err != nil {
		return nil, err
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.ServeConn(accepted) })
	client := rpc.NewClient(conn)
	call := func(context.Context, int) error {
		var out []byte
		if err := client.Call("NetRPC.Echo", j.value, &out); err != nil {
			return fmt.Errorf("net/rpc: %w", err)
		}
		if !sameSize(out, j.value) {
			return errAnswer
		}
		return nil
	}
	return &line{call, func() {
		client.Close()
		serving.Wait()
	}}, nil
}
