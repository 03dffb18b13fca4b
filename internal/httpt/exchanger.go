package httpt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// exchanger keeps the pooled connections to one peer. It is safe for concurrent use.
type exchanger struct {
	pool       *http.Transport
	url        *url.URL
	maxMessage int
	legacyKey  string          // not "": the peer speaks version 1
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	ended      atomic.Uint64 // connections, but for those that were to end
}

// DialExchange implements [transport.ExchangeDialer]. It dials nothing yet: the
// first exchange does.
func (*Transport) DialExchange(_ context.Context, cfg transport.Config) (transport.Exchanger, error) {
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		return nil, transport.NotSent(fmt.Errorf("owtp: %w", err))
	}
	scheme := "http"
	if cfg.TLS != nil {
		scheme = "https"
	}
	x := &exchanger{
		url:        &url.URL{Scheme: scheme, Host: cfg.Address, Path: cmp.Or(cfg.Path, "/")},
		maxMessage: cfg.MaxMessage, legacyKey: cfg.LegacyKey,
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.pool = newPool(cfg)
	x.pool.DialContext = x.dialer(cfg)
	return x, nil
}

// newPool has no proxy, follows nothing and unpacks nothing: a message goes to
// the peer that was named, and its bytes are the peer's.
func newPool(cfg transport.Config) *http.Transport {
	p := &http.Transport{
		DisableCompression:     true,
		ForceAttemptHTTP2:      cfg.TLS != nil,
		TLSHandshakeTimeout:    cfg.HandshakeTimeout,
		MaxConnsPerHost:        cfg.MaxConnsPerPeer,
		MaxIdleConnsPerHost:    cfg.MaxConnsPerPeer,
		MaxResponseHeaderBytes: int64(cfg.MaxHeader),
		ReadBufferSize:         cfg.ReadBufferSize,
		WriteBufferSize:        cfg.WriteBufferSize,
		// The side that calls should be the first to drop an idle connection.
		// If the other one does, a request can be under way at that moment,
		// and nobody knows whether it arrived.
		IdleConnTimeout: cfg.IdleTimeout / 4 * 3,
	}
	if cfg.TLS != nil {
		p.TLSClientConfig = cfg.TLS.Clone()
		// All exchanges share one HTTP/2 connection, so a dead one must be noticed.
		p.HTTP2 = &http.HTTP2Config{SendPingTimeout: cfg.HandshakeTimeout, PingTimeout: cfg.HandshakeTimeout}
	}
	return p
}

// dialer ends dials with Close; net/http lets them run on without the request
// that asked for them.
func (x *exchanger) dialer(cfg transport.Config) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: cfg.HandshakeTimeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(x.ctx, cancel)()
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c, ended: &x.ended}, nil
	}
}

// Exchange implements [transport.Exchanger].
func (x *exchanger) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	if x.ctx.Err() != nil {
		return transport.Message{}, transport.NotSent(net.ErrClosed)
	}
	switch {
	case len(m.Data) == 0:
		return transport.Message{}, transport.NotSent(&transport.Refusal{Status: http.StatusBadRequest, Reason: "a message over HTTP cannot be empty"})
	case len(m.Data) > x.maxMessage:
		return transport.Message{}, transport.NotSent(&transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large to send"})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(x.ctx, cancel)()

	var wire wireWatch
	body := newOnceBody(m.Data)
	defer body.release() // m.Data is the caller's again
	resp, err := x.pool.RoundTrip(x.request(wire.into(ctx), body, m))
	if err == nil {
		if resp.Close {
			wire.lastExchange()
		}
		answer, err := x.readAnswer(resp)
		return answer, x.explain(err)
	}
	err = x.explain(err)
	if body.release() || wire.untouched() {
		err = transport.NotSent(err)
	}
	return transport.Message{}, err
}

// request has neither GetBody nor an Idempotency-Key, with which net/http would
// take the liberty of sending a POST again.
func (x *exchanger) request(ctx context.Context, body *onceBody, m transport.Message) *http.Request {
	r := &http.Request{
		Method:        http.MethodPost,
		URL:           x.url,
		Host:          x.url.Host,
		Header:        http.Header{"Content-Type": {contentType(m.Form)}, "User-Agent": {"owtp"}},
		Body:          body,
		ContentLength: int64(len(m.Data)),
	}
	if x.legacyKey != "" {
		r.Header.Set(headerLegacyKey, x.legacyKey)
		r.Header.Set("Content-Type", typeLegacySent)
	}
	return r.WithContext(ctx)
}

// readAnswer closes the body without draining it: net/http then keeps the
// connection only if the answer had been read to its end.
func (x *exchanger) readAnswer(resp *http.Response) (transport.Message, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return transport.Message{}, httpguard.ReadRefusal(resp.StatusCode, resp.Body)
	}
	form, ok := formOf(resp.Header)
	if x.legacyKey != "" {
		form, ok = transport.Legacy, isLegacy(resp.Header)
		if refusal := legacyRefusal(resp); refusal != nil {
			return transport.Message{}, refusal
		}
	}
	if !ok {
		return transport.Message{}, &transport.Refusal{Status: http.StatusUnsupportedMediaType, Reason: "the answer is no OWTP message"}
	}
	data, _, err := httpguard.ReadBody(resp.Body, resp.ContentLength, x.maxMessage, nil)
	if errors.Is(err, httpguard.ErrTooLarge) {
		return transport.Message{}, &transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "the answer is too large"}
	}
	if err != nil {
		return transport.Message{}, fmt.Errorf("owtp: reading the answer: %w", err)
	}
	return transport.Message{Form: form, Data: data}, nil
}

// explain names Close as the cause of what it broke off.
func (x *exchanger) explain(err error) error {
	var refusal *transport.Refusal
	if err != nil && x.ctx.Err() != nil && !errors.As(err, &refusal) {
		return fmt.Errorf("owtp: exchange broken off: %w", net.ErrClosed)
	}
	return err
}

// Ended implements [transport.Watcher].
func (x *exchanger) Ended() uint64 { return x.ended.Load() }

// RemoteAddr implements [transport.Exchanger].
func (x *exchanger) RemoteAddr() string { return x.url.Host }

// Close implements [transport.Exchanger]. Exchanges under way end.
func (x *exchanger) Close() error {
	x.cancel()
	x.pool.CloseIdleConnections()
	return nil
}

// into returns a context in which net/http tells the watch its connection.
func (w *wireWatch) into(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: w.gotConn})
}
