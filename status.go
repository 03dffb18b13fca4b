package owtp

import "net/http"

// The status of a response or of an [*Error] (docs/PROTOCOL.md §9). The names
// that begin with Err are numbers, not errors; they are the names that programs
// of this family have always used.
const (
	StatusSuccess           uint64 = 200 // answered; 0, from a handler that set nothing, counts as well
	ErrBadRequest           uint64 = 400 // the request cannot be read
	ErrUnauthorized         uint64 = 401 // a signature is missing or wrong, or the peer is not allowed
	ErrSecretKeyInvalid     uint64 = 402 // key agreement required, or the sealed message does not open
	ErrNotFoundMethod       uint64 = 404 // nobody handles the method
	ErrRequestTimeout       uint64 = 408 // no answer in time
	ErrReplayAttack         uint64 = 409 // a copy, another epoch, or a clock outside the window
	ErrTooLarge             uint64 = 413 // a message over the limit
	ErrUnsupportedType      uint64 = 415 // not a content type of this protocol, or a data format that is not known
	ErrTooManyRequests      uint64 = 429 // over a limit; try again later
	ErrNetworkDisconnected  uint64 = 430 // no connection
	ErrInternalServerError  uint64 = 500 // the handler failed
	ErrResponseMethodDiffer uint64 = 501 // the response is not the request's
	ErrKeyAgreementFailed   uint64 = 502 // no agreement
	ErrDenialOfService      uint64 = 503 // refused or shutting down
	ErrOutcomeUnknown       uint64 = 504 // nobody knows whether the handler ran
	ErrCustomError          uint64 = 600 // the application's own from here on
)

var statusTexts = map[uint64]string{
	0: "success", StatusSuccess: "success", ErrBadRequest: "bad request", ErrUnauthorized: "unauthorized",
	ErrSecretKeyInvalid: "key agreement required or not valid", ErrNotFoundMethod: "no such method",
	ErrRequestTimeout: "timeout", ErrReplayAttack: "replay", ErrTooLarge: "too large",
	ErrUnsupportedType: "unsupported content type or data format", ErrTooManyRequests: "too many requests",
	ErrNetworkDisconnected: "disconnected", ErrInternalServerError: "internal error",
	ErrResponseMethodDiffer: "response does not match the request", ErrKeyAgreementFailed: "key agreement failed",
	ErrDenialOfService: "refused", ErrOutcomeUnknown: "outcome unknown",
}

// StatusText returns a short text for a status, or "" if it has none.
func StatusText(status uint64) string {
	if t, ok := statusTexts[status]; ok {
		return t
	}
	if status < 600 {
		return http.StatusText(int(status))
	}
	return ""
}
