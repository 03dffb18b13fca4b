package httpguard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/owtp-go/owtp/transport"
)

// A Server is a bound and serving [transport.Listener].
type Server struct {
	http    *http.Server
	addr    net.Addr
	cancel  context.CancelFunc
	inside  *tally
	served  chan struct{} // closed when the accepting goroutine is gone
	closing sync.Once
}

// Serve binds cfg.Address and serves h there. The context given to h ends when
// the server is closed. ctx bounds the binding only.
func Serve(ctx context.Context, cfg transport.Config, http2 bool, h http.Handler) (*Server, error) {
	if cfg.TLS != nil && !canIdentify(cfg.TLS) {
		return nil, errors.New("owtp: the listener's TLS configuration has no certificate")
	}
	bound, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("owtp: %w", err)
	}
	base, cancel := context.WithCancel(context.Background())
	s := &Server{
		addr:   bound.Addr(),
		cancel: cancel,
		inside: newTally(),
		served: make(chan struct{}),
	}
	s.http = newHTTPServer(cfg, http2, s.counted(h))
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	s.http.ConnState = s.connState
	ln := bound
	if cfg.MaxConns > 0 {
		ln = limit(ln, cfg.MaxConns)
	}
	go s.serve(ln, cfg)
	return s, nil
}

// newHTTPServer bounds all that a client can hold on to before a handler runs.
// There is no ReadTimeout and no WriteTimeout, because they would run on while
// a handler works; handlers set deadlines around reading and writing instead.
func newHTTPServer(cfg transport.Config, http2 bool, h http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cfg.HandshakeTimeout, // also bounds the TLS handshake
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.MaxHeader,
		Protocols:         &protocols,
		TLSConfig:         serverTLS(cfg.TLS),
		ErrorLog:          log.New(serverLog{cfg.Logger}, "", 0),
	}
}

// A serverLog writes what net/http complains about, such as TLS handshakes that
// fail, as lines of one kind, so that a flood of them can be bounded.
type serverLog struct{ to *slog.Logger }

func (l serverLog) Write(b []byte) (int, error) {
	l.to.Warn("owtp: HTTP server complains", "says", strings.TrimSpace(string(b[:min(len(b), maxComplaint)])))
	return len(b), nil
}

// maxComplaint cuts the stack that net/http logs after a panic.
const maxComplaint = 4096

func canIdentify(c *tls.Config) bool {
	return len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil
}

// serverTLS leaves the choice of ALPN names to net/http, which adds those of
// the protocols that are switched on.
func serverTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.NextProtos = nil
	return c
}

func (s *Server) serve(ln net.Listener, cfg transport.Config) {
	defer close(s.served)
	var err error
	if cfg.TLS != nil {
		err = s.http.ServeTLS(ln, "", "")
	} else {
		err = s.http.Serve(ln)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		cfg.Logger.Error("owtp: listener ended", "address", s.addr.String(), "error", err)
		_ = ln.Close()
	}
}

// counted lets Close wait for handlers: those of HTTP/2 streams and of
// taken-over connections run outside what net/http accounts for.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.inside.enter() {
			panic(http.ErrAbortHandler) // closed a moment ago
		}
		defer s.inside.leave()
		h.ServeHTTP(w, r)
	})
}

func (s *Server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.inside.force()
	case http.StateClosed, http.StateHijacked:
		s.inside.leave()
	}
}

// Addr implements [transport.Listener].
func (s *Server) Addr() net.Addr { return s.addr }

// Shutdown implements [transport.Listener].
func (s *Server) Shutdown(ctx context.Context) error {
	return s.http.Shutdown(ctx)
}

// Close implements [transport.Listener].
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.cancel()
		_ = s.http.Close()
		<-s.served
		// A connection that was accepted while the first Close went over
		// the list is caught by the second.
		_ = s.http.Close()
	})
	s.inside.shutAndWait()
	return nil
}
