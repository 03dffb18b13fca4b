package wst

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/owtp-go/owtp/internal/httpguard"
	"github.com/owtp-go/owtp/transport"
)

// closePatience is how long a close may wait for the peer to take the close
// frame and to answer it. The library's own five seconds would hold up
// whoever closes a thousand dead connections.
const closePatience = 100 * time.Millisecond

// conn implements [transport.Conn] and [transport.LegacyConn].
type conn struct {
	ws            *websocket.Conn
	raw           net.Conn
	local, remote string
	maxMessage    int
	bodyTimeout   time.Duration
	receiving     *transport.Budget

	announced string // the public key in header a of the upgrade
	legacy    bool   // the other side can speak version 1

	closing sync.Once
	closed  atomic.Bool // this side has closed
}

func newConn(ws *websocket.Conn, raw net.Conn, cfg transport.Config, local, remote string) *conn {
	ws.SetReadLimit(int64(cfg.MaxMessage))
	return &conn{
		ws: ws, raw: raw, local: local, remote: remote,
		maxMessage: cfg.MaxMessage, bodyTimeout: cfg.BodyTimeout, receiving: cfg.Receiving,
	}
}

// Send implements [transport.Conn]. The message goes out within BodyTimeout, or
// sooner if ctx says so, or the connection is closed: half a message cannot be
// taken back.
func (c *conn) Send(ctx context.Context, m transport.Message) error {
	if len(m.Data) > c.maxMessage {
		return transport.NotSent(&transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large to send"})
	}
	if err := ctx.Err(); err != nil {
		return transport.NotSent(err) // the library would close the connection for it
	}
	kind := websocket.MessageBinary
	if m.Form != transport.Binary {
		kind = websocket.MessageText
	}
	// A deadline on the socket costs less than a context with a timer. It is
	// taken away again because pongs are written without one.
	_ = c.raw.SetWriteDeadline(time.Now().Add(c.bodyTimeout))
	err := c.ws.Write(ctx, kind, m.Data)
	if err != nil {
		c.abort()
		return c.explain(ctx, "send", err)
	}
	_ = c.raw.SetWriteDeadline(time.Time{})
	return nil
}

// Recv implements [transport.Conn]. An error ends the connection.
func (c *conn) Recv(ctx context.Context) (transport.Message, error) {
	kind, r, err := c.ws.Reader(ctx)
	if err != nil {
		return transport.Message{}, c.broken(ctx, err)
	}
	// Silence between two messages is the node's business; in the midst of
	// one it is not.
	_ = c.raw.SetReadDeadline(time.Now().Add(c.bodyTimeout))
	data, held, err := c.readAll(r)
	c.receiving.Give(held)
	if err != nil {
		return transport.Message{}, c.broken(ctx, err)
	}
	_ = c.raw.SetReadDeadline(time.Time{})
	form := transport.Binary
	if kind == websocket.MessageText {
		form = transport.JSON
	}
	return transport.Message{Form: form, Data: data}, nil
}

// readAll reads one message to a buffer that the caller may keep. It asks the
// budget for what it holds beyond the first piece, for as long as it reads.
func (c *conn) readAll(r io.Reader) (data []byte, held int, err error) {
	var all pile
	defer all.release()
	for room := all.more(); ; {
		n, err := r.Read(room)
		all.octets += n
		if err == io.EOF {
			return all.join(), held, nil
		}
		if err != nil {
			return nil, held, err
		}
		if room = room[n:]; len(room) > 0 {
			continue
		}
		next := all.next()
		if !c.receiving.Take(next) {
			return nil, held, httpguard.ErrBusy
		}
		held += next
		room = all.more()
	}
}

// broken ends the connection after a failed read; the library leaves that open
// in some cases.
func (c *conn) broken(ctx context.Context, err error) error {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		c.abort() // the library has sent the close frame
		return closedError{&transport.Refusal{Status: http.StatusRequestEntityTooLarge, Reason: "message too large"}}
	}
	err = c.explain(ctx, "receive", err)
	c.abort()
	return err
}

// explain turns what the library says into what [transport.Conn] promises:
// errors after a close are net.ErrClosed, whatever closed the connection.
func (c *conn) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil && !c.closed.Load() {
		return closedError{fmt.Errorf("owtp: %s: %w", doing, context.Cause(ctx))}
	}
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		if status := statusOf(ce.Code); status != 0 {
			return closedError{&transport.Refusal{Status: status, Reason: httpguard.Line(ce.Reason)}}
		}
		return closedError{errors.New("owtp: closed by the peer with code " + strconv.Itoa(int(ce.Code)) + " " + httpguard.Line(ce.Reason))}
	}
	return closedError{fmt.Errorf("owtp: %s: %w", doing, err)}
}

// statusOf gives the close codes that complain the number which PROTOCOL §9 has
// for the complaint, and 0 to those that do not.
func statusOf(code websocket.StatusCode) int {
	switch code {
	case websocket.StatusProtocolError, websocket.StatusInvalidFramePayloadData, websocket.StatusPolicyViolation:
		return http.StatusBadRequest
	case websocket.StatusUnsupportedData:
		return http.StatusUnsupportedMediaType
	case websocket.StatusMessageTooBig:
		return http.StatusRequestEntityTooLarge
	case websocket.StatusInternalError:
		return http.StatusInternalServerError
	case websocket.StatusServiceRestart, websocket.StatusTryAgainLater:
		return http.StatusServiceUnavailable
	}
	return 0
}

// Ping implements [transport.Pinger].
func (c *conn) Ping(ctx context.Context) error {
	if err := c.ws.Ping(ctx); err != nil {
		return c.explain(ctx, "ping", err)
	}
	return nil
}

// Close implements [transport.Conn].
func (c *conn) Close(reason string) error {
	return c.close(websocket.StatusNormalClosure, reason)
}

func (c *conn) close(code websocket.StatusCode, reason string) error {
	c.closing.Do(func() {
		c.closed.Store(true)
		// The library writes the close frame and waits for the peer's; the
		// end of the socket ends its patience, and that of a blocked Send
		// or Recv.
		defer time.AfterFunc(closePatience, func() { _ = c.raw.Close() }).Stop()
		_ = c.ws.Close(code, closeReason(reason))
		_ = c.raw.Close()
	})
	return nil
}

// abort closes without a word. It is safe next to a Close that waits.
func (c *conn) abort() {
	_ = c.raw.Close()
	_ = c.ws.CloseNow()
}

// closeReason fits a text into a control frame.
func closeReason(s string) string {
	const most = 123 // RFC 6455 §5.5, less the two bytes of the code
	s = httpguard.Line(s)
	return s[:min(len(s), most)]
}

// Announced implements [transport.LegacyConn].
func (c *conn) Announced() (key string, legacy bool) { return c.announced, c.legacy }

// LocalAddr implements [transport.Conn].
func (c *conn) LocalAddr() string { return c.local }

// RemoteAddr implements [transport.Conn].
func (c *conn) RemoteAddr() string { return c.remote }

// closedError is the end of a connection with its cause.
type closedError struct{ cause error }

func (e closedError) Error() string        { return e.cause.Error() }
func (e closedError) Unwrap() error        { return e.cause }
func (e closedError) Is(target error) bool { return target == net.ErrClosed }
