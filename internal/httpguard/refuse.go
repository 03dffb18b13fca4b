package httpguard

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/owtp-go/owtp/transport"
)

// maxReason bounds a refusal's text in both directions.
const maxReason = 200

// drainTime is how long a refused body may still take to arrive. Hanging up on
// somebody who is still sending can destroy the refusal on its way; waiting
// longer would give every stranger a connection for the asking. It is as long
// as net/http itself waits for the same reason.
const drainTime = 500 * time.Millisecond

// RefuseUnread is Refuse for a request whose body was not read to its end. The
// rest is not worth waiting for, so the connection goes with it.
func RefuseUnread(w http.ResponseWriter, r *http.Request, status int, reason string) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime))
	}
	Refuse(w, status, reason)
}

// Refuse answers with a status line and one line of text.
func Refuse(w http.ResponseWriter, status int, reason string) {
	if status < 400 || status > 599 {
		status = http.StatusBadRequest // not a status that HTTP knows as an error
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, Line(reason)+"\n")
}

// ReadRefusal turns an answer that is no packet into an error. It reads only
// as much of the body as it may quote.
func ReadRefusal(status int, body io.Reader) *transport.Refusal {
	var head []byte
	if body != nil {
		head, _ = io.ReadAll(io.LimitReader(body, maxReason))
	}
	reason := Line(string(head))
	if reason == "" {
		reason = http.StatusText(status)
	}
	return &transport.Refusal{Status: status, Reason: reason}
}

// Line returns the first line of s with nothing in it that could play tricks in
// a log or on a terminal.
func Line(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
}
