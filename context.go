package owtp

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidwall/gjson"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/wire"
)

// A HandlerFunc handles requests for one method. It sets ctx.Resp. It runs on a
// goroutine of its own, may call, and may take its time: no other request waits
// for it.
type HandlerFunc func(ctx *Context)

// A Context is one request on its way through prepare, middleware, handler and
// finish. It belongs to the goroutine that runs them and is not used again
// afterwards.
type Context struct {
	// Resp is the answer. A handler that sets nothing answers status 0.
	Resp Response
	// PID is the peer's ID: its node ID if Proved, otherwise a random one that
	// begins with "anon:" and lives as long as its connection (on HTTP, as
	// its request). That of a peer proved by version 1 begins with "v1:".
	PID string
	// Method is the method's name.
	Method string
	// RemoteAddress is where the request came from, host:port.
	RemoteAddress string
	// Peer is who called.
	Peer *Peer
	// Values are the program's own, from one stage to the next.
	Values map[string]any

	node    *OWTPNode
	ctx     context.Context
	req     *wire.Packet
	format  codec.Format
	params  gjson.Result
	parsed  bool
	stopped bool
	close   bool
	signed  bool
	missing bool // nobody handles the method
}

// Format prints which request it is, whatever the verb, and nothing of the node
// and the peer's data.
func (c Context) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Context{Method:%q PID:%s RemoteAddress:%s}", c.Method, c.PID, c.RemoteAddress)
}

// Context ends when the caller is gone, has cancelled or has stopped waiting,
// and when the node closes.
func (c *Context) Context() context.Context { return c.ctx }

// Node returns the node that handles the request.
func (c *Context) Node() *OWTPNode { return c.node }

// Params returns the request's parameters for reading by path, as in
// ctx.Params().Get("user.name"), whichever format carried them. They are empty
// if they have no JSON form: a Protobuf message that this program does not know.
func (c *Context) Params() gjson.Result {
	if !c.parsed {
		if text, err := codec.ToJSON(c.format, c.req.Data); err == nil {
			c.params = gjson.ParseBytes(text)
		}
		c.parsed = true
	}
	return c.params
}

// Decode decodes the parameters into what v points to: a struct by its JSON tags
// or a Protobuf message, whichever format carried them. The error is an [*Error]
// of status 400 that names the field, or of 500 if code of the program's panicked,
// which is logged.
func (c *Context) Decode(v any) error {
	if err := codec.Decode(c.format, c.req.Data, v); err != nil {
		if c.node.logPanic(err, c.Method) {
			return &Error{Status: ErrInternalServerError, Msg: "the parameters could not be decoded"}
		}
		return &Error{Status: ErrBadRequest, Msg: "the parameters do not fit: " + err.Error()}
	}
	return nil
}

// DataFormat returns the name of the parameters' format. The answer has the same.
func (c *Context) DataFormat() string { return c.format.Name() }

// Data returns the octets of the parameters as they came, in DataFormat. They
// must not be changed.
func (c *Context) Data() []byte { return c.req.Data }

// Proved reports whether PID is a node ID that the peer has proved.
func (c *Context) Proved() bool { return c.Peer.key != nil }

// Signed reports whether this very request carries a signature of the peer.
func (c *Context) Signed() bool { return c.signed }

// Transport returns the way the request came: HTTP, Websocket, MQ or Memory.
// Handlers need it for nothing but to tell people.
func (c *Context) Transport() string { return c.Peer.kind.String() }

// Meta returns a user entry of the request's metadata, or "".
func (c *Context) Meta(key string) string {
	for _, m := range c.req.Meta {
		if m.Key == key {
			return m.Value
		}
	}
	return ""
}

// Trace returns the caller's trace context (W3C traceparent), or "".
func (c *Context) Trace() string { return c.req.Trace }

// Evidence returns the signed request for [VerifyEvidence], or nil if it was
// not signed, or in version 1, whose signatures prove too little.
func (c *Context) Evidence() []byte {
	if !c.signed || c.req.Signature == nil {
		return nil
	}
	return evidence(c.req)
}

// Response sets the answer.
func (c *Context) Response(result any, status uint64, msg string) {
	c.Resp = Response{Status: status, Msg: msg, Result: result}
}

// ResponseStopRun sets the answer and ends the run: of the stages that have not
// begun, only finish follows. It does not end the function that calls it.
func (c *Context) ResponseStopRun(result any, status uint64, msg string) {
	c.Response(result, status, msg)
	c.stopped = true
}

// Close ends the connection of this request, and no other of the same peer,
// once the answer is written. On HTTP it does nothing.
func (c *Context) Close() { c.close = true }

var errNoSession = errors.New("owtp: nothing can be kept for an anonymous peer over HTTP or a message queue: its ID lives as long as the request; ask for EnableSignature or EnableKeyAgreement")

// keeps reports whether the peer has an ID that outlives the request.
func (c *Context) keeps() error {
	if c.Peer.key == nil && c.Peer.link == nil {
		return errNoSession
	}
	return nil
}

// SetSession keeps a value for the peer. It is an error where nothing can be
// kept, where the store cannot answer and where the value cannot be stored.
func (c *Context) SetSession(key string, val any) error {
	if err := c.keeps(); err != nil {
		return err
	}
	return c.node.Peerstore().Put(c.PID, key, val)
}

// GetSession returns what SetSession kept, or nil.
func (c *Context) GetSession(key string) any {
	if c.keeps() != nil {
		return nil
	}
	return c.node.Peerstore().Get(c.PID, key)
}

// DelSession forgets one value of the peer.
func (c *Context) DelSession(key string) error {
	if err := c.keeps(); err != nil {
		return err
	}
	return c.node.Peerstore().Delete(c.PID, key)
}

// DestroySession forgets everything that is kept for the peer.
func (c *Context) DestroySession() error {
	if err := c.keeps(); err != nil {
		return err
	}
	return c.node.Peerstore().Destroy(c.PID)
}
