// Package httpt carries messages over HTTP: one message in the body of a POST,
// one in the body of its answer (PROTOCOL §7).
package httpt

import (
	"context"
	"mime"
	"net/http"
	"strings"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// The content types of the two forms.
const (
	TypeBinary = "application/owtp"
	TypeJSON   = "application/owtp+json"
)

// What protocol version 1 has instead: one content type for packets, one for
// complaints, and a header that names the sender's public key.
const (
	typeLegacy       = "application/json"
	typeLegacySent   = typeLegacy + "; charset=UTF-8" // with requests
	typeLegacyText   = "text/plain"
	headerLegacyKey  = "A"
	maxLegacyKey     = 128 // a key has at most 88 characters
	emptyLegacyReply = "an empty answer: the peer did not take it for a request"
)

// Transport implements [transport.ExchangeDialer]. It has no state.
type Transport struct{}

var _ transport.ExchangeDialer = (*Transport)(nil)

// New returns the transport.
func New() *Transport { return new(Transport) }

// Kind implements [transport.Transport].
func (*Transport) Kind() transport.Kind { return transport.HTTP }

// Listen implements [transport.Transport]. With TLS it speaks HTTP/2 as well.
// ctx bounds the binding only.
func (*Transport) Listen(ctx context.Context, cfg transport.Config, h transport.Handler) (transport.Listener, error) {
	s, err := httpguard.Serve(ctx, cfg, cfg.TLS != nil, NewHandler(cfg, h))
	if err != nil {
		return nil, err // a nil *Server must not become a non-nil Listener
	}
	return s, nil
}

// contentType is the inverse of formOf.
func contentType(f transport.Form) string {
	switch f {
	case transport.JSON:
		return TypeJSON
	case transport.Legacy:
		return typeLegacy
	case transport.Text:
		return typeLegacyText + "; charset=utf-8"
	}
	return TypeBinary
}

// formOf reads the one Content-Type of a request or an answer. People send JSON
// by hand, with tools that add a charset; the binary form knows no parameters.
func formOf(h http.Header) (transport.Form, bool) {
	values := h["Content-Type"]
	if len(values) != 1 {
		return 0, false
	}
	switch values[0] {
	case TypeBinary:
		return transport.Binary, true
	case TypeJSON:
		return transport.JSON, true
	}
	media, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return 0, false
	}
	charset, given := params["charset"]
	switch {
	case media == TypeBinary && len(params) == 0:
		return transport.Binary, true
	case media == TypeJSON && (!given || strings.EqualFold(charset, "utf-8")):
		return transport.JSON, true
	}
	return 0, false
}

// isLegacy reports whether a request is of version 1.
func isLegacy(h http.Header) bool {
	values := h["Content-Type"]
	if len(values) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(values[0])
	charset, given := params["charset"]
	return err == nil && media == typeLegacy && (!given || strings.EqualFold(charset, "utf-8"))
}

// announced returns header a of a version 1 request. Several of them are no key.
func announced(h http.Header) string {
	a := strings.Join(h[headerLegacyKey], ",")
	return a[:min(len(a), maxLegacyKey)]
}
