// Package wst carries messages over WebSocket: one message in one WebSocket
// message, JSON as text and the binary form as binary (PROTOCOL §7).
package wst

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// Subprotocol is what a client offers. Browsers and simple tools that offer
// nothing are accepted too.
const Subprotocol = "owtp2"

// Transport implements [transport.ConnDialer]. It has no state.
type Transport struct{}

var _ transport.ConnDialer = (*Transport)(nil)

// New returns the transport.
func New() *Transport { return new(Transport) }

// Kind implements [transport.Transport].
func (*Transport) Kind() transport.Kind { return transport.WebSocket }

// Listen implements [transport.Transport]. ctx bounds the binding only.
// An upgrade needs HTTP/1.1, so HTTP/2 is never offered.
func (*Transport) Listen(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Listener, error) {
	s, err := httpguard.Serve(ctx, cfg, false, NewHandler(cfg, h))
	if err != nil {
		return nil, err // a nil *Server must not become a non-nil Listener
	}
	return s, nil
}

// DialConn implements [transport.ConnDialer]. ctx and cfg.HandshakeTimeout
// bound the dial only. Whatever goes wrong here, no message was sent.
func (*Transport) DialConn(ctx context.Context, cfg transport.Config) (transport.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	var socket caughtSocket
	options := &websocket.DialOptions{
		HTTPClient:      &http.Client{Transport: dialTransport(cfg, &socket), CheckRedirect: noRedirect},
		Subprotocols:    []string{Subprotocol},
		CompressionMode: websocket.CompressionDisabled,
	}
	if cfg.LegacyKey != "" {
		options.Subprotocols = nil
		options.HTTPHeader = http.Header{headerLegacyKey: {cfg.LegacyKey}}
	}
	ws, resp, err := websocket.Dial(ctx, dialURL(cfg), options)
	if err != nil {
		socket.close()
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, transport.NotSent(httpguard.ReadRefusal(resp.StatusCode, resp.Body))
		}
		return nil, transport.NotSent(fmt.Errorf("owtp: %w", err))
	}
	raw := socket.get()
	return newConn(ws, raw, cfg, raw.LocalAddr().String(), cfg.Address), nil
}

func dialURL(cfg transport.Config) string {
	if cfg.TLS != nil {
		return "wss://" + cfg.Address + cmp.Or(cfg.Path, "/")
	}
	return "ws://" + cfg.Address + cmp.Or(cfg.Path, "/")
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// dialTransport serves one dial. It has no proxy, and it catches the socket,
// whose deadlines the WebSocket library does not show.
func dialTransport(cfg transport.Config, socket *caughtSocket) *http.Transport {
	d := &net.Dialer{Timeout: cfg.HandshakeTimeout}
	t := &http.Transport{
		TLSHandshakeTimeout:    cfg.HandshakeTimeout,
		MaxResponseHeaderBytes: int64(cfg.MaxHeader),
		MaxIdleConnsPerHost:    -1, // a connection that was not upgraded is of no use
		ReadBufferSize:         cfg.ReadBufferSize,
		WriteBufferSize:        cfg.WriteBufferSize,
		Protocols:              new(http.Protocols),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return c, socket.catch(c)
		},
	}
	t.Protocols.SetHTTP1(true)
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
		t.TLSClientConfig.NextProtos = nil
	}
	return t
}

// caughtSocket is the socket of one dial. Dials that net/http lets run on after
// their request has failed find it closed.
type caughtSocket struct {
	mu     sync.Mutex
	conn   net.Conn
	closed bool
}

func (s *caughtSocket) catch(c net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.conn != nil {
		_ = c.Close()
		return errors.New("owtp: dial given up")
	}
	s.conn = c
	return nil
}

func (s *caughtSocket) get() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

func (s *caughtSocket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		_ = s.conn.Close()
	}
}
