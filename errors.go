package owtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/transport"
)

// ErrTrust is wrapped by errors about a peer that is not who it should be: it
// cannot prove the pinned ID, an alias is bound to another one, or nothing is
// known and only pinned peers are trusted. Trying again does not help.
var ErrTrust = errors.New("peer is not trusted")

// ErrUnknownPeer is wrapped by errors about a peer that was never connected.
var ErrUnknownPeer = errors.New("peer is not connected")

// An Error is what went wrong with a call. [errors.As] finds it in every error
// of the calling methods. One that a typed handler makes and returns is what its
// caller gets: status, message and details (see [Handle]).
type Error struct {
	Status uint64 // one of the statuses, never 0 or 200
	Msg    string // what happened, with which value, and what to do
	Method string // of the call, if there is one
	PeerID string // as the caller named it

	// Proved says that the peer itself said so, under its signature or seal.
	// If not, it may have been anybody on the way.
	Proved bool
	// MayHaveRun says that the handler may have run. If it is false, it has
	// not, and the call can be made again without doing anything twice.
	MayHaveRun bool
	// Details say more to programs. A handler sets what a result may be; the
	// caller has it as Response.Result would be, or nil, for DecodeDetails.
	Details any

	cause error
	came  bool // from the peer, so that Details have been checked
}

// DecodeDetails decodes the details into what v points to: a struct by its JSON
// tags or a Protobuf message, whichever format carried them. Without details it
// is an error.
func (e *Error) DecodeDetails(v any) error {
	if e.Details == nil {
		return errors.New("owtp: the error has no details")
	}
	return decodeValue(e.Details, e.came, v)
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("owtp: ")
	if e.Method != "" {
		fmt.Fprintf(&b, "call %q", e.Method)
		if e.PeerID != "" {
			fmt.Fprintf(&b, " to %q", e.PeerID)
		}
		b.WriteString(": ")
	} else if e.PeerID != "" {
		fmt.Fprintf(&b, "peer %q: ", e.PeerID)
	}
	if e.Msg != "" {
		fmt.Fprintf(&b, "%s (status %d)", e.Msg, e.Status)
	} else {
		fmt.Fprintf(&b, "%s (status %d)", StatusText(e.Status), e.Status)
	}
	return b.String()
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// Timeout reports whether time ran out, as net.Error's does.
func (e *Error) Timeout() bool { return e.Status == ErrRequestTimeout }

// StatusOf returns the status of the first [*Error] in err's tree, 200 for nil
// and 500 for any other error.
func StatusOf(err error) uint64 {
	if err == nil {
		return StatusSuccess
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return ErrInternalServerError
}

// bare is a lower layer's error where it stands within a text of this one, which
// begins with the library's name already.
type bare struct{ error }

func (b bare) Error() string { return strings.TrimPrefix(b.error.Error(), "owtp: ") }

func (b bare) Unwrap() error { return b.error }

func newError(status uint64, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Status: status, Msg: err.Error(), cause: errors.Unwrap(err)}
}

// localError turns an error of a lower layer into one of ours. sent says that
// the request may have reached the peer.
func localError(err error, sent bool) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	out := &Error{Status: ErrNetworkDisconnected, Msg: bare{err}.Error(), MayHaveRun: sent, cause: err}
	var refusal *transport.Refusal
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		out.Status, out.Msg = ErrRequestTimeout, "no answer in time"
	case errors.Is(err, context.Canceled):
		out.Status, out.Msg = ErrRequestTimeout, "the caller cancelled"
	case errors.As(err, &refusal):
		// A status line proves nothing. What it says about our own request is
		// passed on; that it "worked" is never believed.
		out.Status = ErrNetworkDisconnected
		if refusal.Status >= 400 && refusal.Status < 600 {
			out.Status = uint64(refusal.Status)
		}
		out.Msg = fmt.Sprintf("refused with status %d (not proved): %s", refusal.Status, refusal.Reason)
	case errors.Is(err, secure.ErrIdentity):
		out.Status, out.cause = ErrUnauthorized, errors.Join(ErrTrust, err)
	case errors.Is(err, secure.ErrHandshake):
		out.Status = ErrKeyAgreementFailed
	case errors.Is(err, session.ErrFull):
		out.Status = ErrTooManyRequests
	case errors.Is(err, net.ErrClosed):
		out.Status = ErrNetworkDisconnected
	}
	if errors.Is(err, transport.ErrNotSent) {
		out.MayHaveRun = false
	}
	return out
}

func trustError(format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Status: ErrUnauthorized, Msg: err.Error(), cause: errors.Join(ErrTrust, err)}
}
