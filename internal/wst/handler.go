package wst

import (
	"bufio"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// face is a node as an http.Handler. It is immutable and safe for concurrent use.
type face struct {
	guard   *httpguard.Guard
	handler transport.Handler
	cfg     transport.Config
	log     *slog.Logger
}

// NewHandler returns a node's face for a server and a mux of the caller's. It
// checks all that a listener checks, except for what belongs to sockets: the
// time for headers, the idle time and the number of connections. Such a server
// does not know of connections that were upgraded; the node closes them.
func NewHandler(cfg transport.Config, h transport.Handler) http.Handler {
	return &face{guard: httpguard.NewGuard(cfg), handler: h, cfg: cfg, log: cfg.Logger}
}

// ServeHTTP checks, upgrades and stays until the handler is done with the connection.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(f.cfg.HandshakeTimeout))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(f.cfg.HandshakeTimeout))
	if refusal := f.check(w, r); refusal != nil {
		f.log.Debug("owtp: WebSocket request refused", "remote", r.RemoteAddr, "status", refusal.Status, "reason", refusal.Reason)
		httpguard.RefuseUnread(w, r, refusal.Status, refusal.Reason)
		return
	}
	hijack := &hijackWriter{ResponseWriter: w}
	ws, err := websocket.Accept(hijack, r, &websocket.AcceptOptions{
		Subprotocols:    []string{Subprotocol},
		CompressionMode: websocket.CompressionDisabled,
		// The guard has checked already, and is stricter: the library lets
		// in every page whose Origin is the request's Host, and with that
		// every name that was rebound to this address.
		InsecureSkipVerify: true,
	})
	if err != nil {
		f.log.Debug("owtp: WebSocket upgrade failed", "remote", r.RemoteAddr, "error", err)
		return // the library has answered
	}
	from := f.guard.Remote(r)
	c := newConn(ws, hijack.conn, f.cfg, from.LocalAddr, from.Addr)
	c.announced, c.legacy = announced(r.Header), ws.Subprotocol() == ""
	// The context ends when the listener is closed.
	stop := context.AfterFunc(r.Context(), c.abort)
	defer c.abort()
	defer stop()
	f.serve(r.Context(), c)
}

func (f *face) check(w http.ResponseWriter, r *http.Request) *transport.Refusal {
	if refusal := f.guard.Check(r); refusal != nil {
		return refusal
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return &transport.Refusal{Status: http.StatusMethodNotAllowed, Reason: "this address speaks WebSocket"}
	}
	if !asksForWebSocket(r.Header) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return &transport.Refusal{Status: http.StatusUpgradeRequired, Reason: "this address speaks WebSocket"}
	}
	return nil
}

func asksForWebSocket(h http.Header) bool {
	for _, v := range h["Upgrade"] {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "websocket") {
				return true
			}
		}
	}
	return false
}

// headerLegacyKey is where protocol version 1, which has no subprotocol, names
// the public key of who dials.
const headerLegacyKey = "A"

// announced returns what version 1 announces. Several keys are none, and neither
// is what is longer than its 88 characters.
func announced(h http.Header) string {
	const most = 128
	a := strings.Join(h[headerLegacyKey], ",")
	return a[:min(len(a), most)]
}

// serve keeps a handler's panic on its own connection.
func (f *face) serve(ctx context.Context, c *conn) {
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("owtp: handler panicked", "remote", c.remote, "panic", p, "stack", string(debug.Stack()))
			_ = c.close(websocket.StatusInternalError, "internal error")
			return
		}
		_ = c.Close("")
	}()
	f.handler.ServeConn(ctx, c)
}

// hijackWriter remembers the socket, whose deadlines the library does not show.
type hijackWriter struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (w *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// The deadlines of the upgrade do not count any more.
	_ = c.SetDeadline(time.Time{})
	w.conn = c
	if t, ok := c.(*tls.Conn); ok {
		w.conn = t.NetConn() // closing a tls.Conn may block while it says goodbye
	}
	return c, rw, nil
}
