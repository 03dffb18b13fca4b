package httpt

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// face is a node as an http.Handler. It is immutable and safe for concurrent use.
type face struct {
	guard       *httpguard.Guard
	handler     transport.Handler
	maxMessage  int
	receiving   *transport.Budget
	bodyTimeout time.Duration
	legacy      bool
	log         *slog.Logger
}

// NewHandler returns a node's face for a server and a mux of the caller's. It
// checks all that a listener checks, except for what belongs to sockets: the
// time for headers, the idle time and the number of connections.
func NewHandler(cfg transport.Config, h transport.Handler) http.Handler {
	return &face{
		guard:       httpguard.NewGuard(cfg),
		handler:     h,
		maxMessage:  cfg.MaxMessage,
		receiving:   cfg.Receiving,
		bodyTimeout: cfg.BodyTimeout,
		legacy:      cfg.Legacy,
		log:         cfg.Logger,
	}
}

// ServeHTTP is the straight way of one request: headers, body, handler, answer.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Servers of others may not know deadlines; their own ones then count.
	rc := http.NewResponseController(w)
	deadline := time.Now().Add(f.bodyTimeout)
	_ = rc.SetReadDeadline(deadline)
	_ = rc.SetWriteDeadline(deadline)

	if refusal := f.guard.Check(r); refusal != nil {
		f.refuse(w, r, refusal)
		return
	}
	if origin := f.guard.Origin(r); origin != "" && allowOrigin(w, r, origin) {
		return
	}
	form, refusal := f.checkHeader(w, r)
	if refusal != nil {
		f.refuse(w, r, refusal)
		return
	}
	data, held, refusal := f.readBody(r)
	defer func() { f.receiving.Give(held) }()
	if refusal == nil && len(data) == 0 && form != transport.Legacy { // which has an answer to that
		refusal = &transport.Refusal{Status: http.StatusBadRequest, Reason: "empty body"}
	}
	if refusal != nil {
		f.refuse(w, r, refusal)
		return
	}
	m := transport.Message{Form: form, Data: data}
	if form == transport.Legacy {
		m.Announced = announced(r.Header)
	}
	// While the handler works nothing is read or written, and an expired
	// deadline would look as if the client had gone.
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
	answer, err := f.call(r.Context(), f.guard.Remote(r), m)
	_ = rc.SetWriteDeadline(time.Now().Add(f.bodyTimeout))
	if err != nil {
		f.refuseError(w, r, err)
		return
	}
	writeAnswer(w, answer)
}

// allowOrigin tells a browser that an allowed page may call and read, and
// reports whether the request was only the question for that.
func allowOrigin(w http.ResponseWriter, r *http.Request, origin string) bool {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Vary", "Origin")
	if r.Method != http.MethodOptions {
		return false
	}
	h.Set("Access-Control-Allow-Methods", http.MethodPost)
	h.Set("Access-Control-Allow-Headers", "Content-Type")
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (f *face) checkHeader(w http.ResponseWriter, r *http.Request) (transport.Form, *transport.Refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return 0, &transport.Refusal{Status: http.StatusMethodNotAllowed, Reason: "messages come by POST"}
	}
	form, ok := formOf(r.Header)
	if f.legacy && isLegacy(r.Header) {
		form, ok = transport.Legacy, true
	}
	if !ok {
		return 0, &transport.Refusal{Status: http.StatusUnsupportedMediaType, Reason: "content type is neither " + TypeBinary + " nor " + TypeJSON}
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return 0, &transport.Refusal{Status: http.StatusUnsupportedMediaType, Reason: "no content encoding is understood"}
	}
	return form, nil
}

func (f *face) readBody(r *http.Request) (data []byte, held int, refusal *transport.Refusal) {
	data, held, err := httpguard.ReadBody(r.Body, r.ContentLength, f.maxMessage, f.receiving)
	switch {
	case errors.Is(err, httpguard.ErrBusy):
		return nil, held, &transport.Refusal{Status: http.StatusServiceUnavailable, Reason: "too busy; try again later"}
	case errors.Is(err, httpguard.ErrTooLarge):
		return nil, held, &transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, held, &transport.Refusal{Status: http.StatusRequestTimeout, Reason: "body too slow"}
	case err != nil:
		return nil, held, &transport.Refusal{Status: http.StatusBadRequest, Reason: "body broken off"}
	}
	return data, held, nil
}

// call keeps a handler's panic from reaching net/http, which would hang up
// without an answer.
func (f *face) call(ctx context.Context, from transport.Remote, m transport.Message) (answer transport.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("owtp: handler panicked", "remote", from.Addr, "panic", p, "stack", string(debug.Stack()))
			err = &transport.Refusal{Status: http.StatusInternalServerError, Reason: "internal error"}
		}
	}()
	return f.handler.ServeExchange(ctx, from, m)
}

// refuse ends a request whose body was not read, or not to its end.
func (f *face) refuse(w http.ResponseWriter, r *http.Request, refusal *transport.Refusal) {
	f.logRefusal(r, refusal)
	// The time for reading may just be used up; saying so has its own.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(f.bodyTimeout))
	httpguard.RefuseUnread(w, r, refusal.Status, refusal.Reason)
}

// refuseError passes on what a handler says of the message, and tells a
// stranger nothing about an error that was not made for it.
func (f *face) refuseError(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) {
		f.log.Error("owtp: exchange failed", "remote", r.RemoteAddr, "error", err)
		refusal = &transport.Refusal{Status: http.StatusInternalServerError, Reason: "internal error"}
	}
	f.logRefusal(r, refusal)
	httpguard.Refuse(w, refusal.Status, refusal.Reason)
}

func (f *face) logRefusal(r *http.Request, refusal *transport.Refusal) {
	f.log.Debug("owtp: HTTP request refused", "remote", r.RemoteAddr, "status", refusal.Status, "reason", refusal.Reason)
}

func writeAnswer(w http.ResponseWriter, m transport.Message) {
	h := w.Header()
	h.Set("Content-Type", contentType(m.Form))
	h.Set("Content-Length", strconv.Itoa(len(m.Data)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(m.Data) // who went away needs no answer
}
