package owtp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/owtp-go/owtp/codec"
	"github.com/owtp-go/owtp/internal/wire"
)

// CallOptions say more about one call. The zero value is the default of
// everything.
type CallOptions struct {
	// Timeout bounds the call; 0 means NodeConfig.TimeoutSEC. A context's
	// earlier deadline counts. The remaining time travels with the request.
	Timeout time.Duration
	// Meta travels with the request: at most 32 entries, keys of at most 64
	// and values of at most 1024 bytes.
	Meta map[string]string
	// Trace is a W3C traceparent, at most 512 bytes.
	Trace string
	// Format is the data's: "json", "protobuf" or another that is registered
	// with the package codec. The answer comes in the same. "" means
	// ConnectConfig.DataFormat.
	Format string
	// CallKey, 16 bytes not all zero, names the call across attempts: the
	// peer runs its handler once for one key. nil means the call's nonce.
	CallKey []byte
	// Repeatable says that running the call twice does no harm, so that it is
	// sent again, in signed and sealed modes, after a connection has broken,
	// and even if the peer has lost its memory in between.
	Repeatable bool
}

// Call calls a method of a connected peer, by name or ID. A non-nil error
// means that nothing was sent and f never runs; nil means that f, which may be
// nil, runs exactly once, with an answer or with a status of ours: 408, 430,
// 503, 504 and the like. With sync, Call returns after f has. f runs on a
// goroutine of its own and may call.
func (n *OWTPNode) Call(pid, method string, params any, sync bool, f func(resp Response)) error {
	p, err := n.newRequest(wire.Request, pid, method, params, nil)
	if err != nil {
		return err
	}
	if !n.reachable(pid) {
		e := unknownPeer(pid)
		e.Method = method
		return e
	}
	done := make(chan struct{})
	ok := n.spawn(func() {
		defer close(done)
		resp, err := n.finishCall(n.ctx, pid, p, nil)
		if err != nil {
			e := localError(err, true)
			resp = &Response{Status: e.Status, Msg: e.Msg, Result: json.RawMessage("null")}
		}
		if f != nil {
			n.guardCallback("callback", func() { f(*resp) })
		}
	})
	if !ok {
		return errNodeClosed
	}
	if sync {
		<-done
	}
	return nil
}

// CallSync calls a method and waits. The error is ours, an [*Error] of any
// status of ours; what the peer answered, of any status, is the Response.
func (n *OWTPNode) CallSync(pid, method string, params any) (*Response, error) {
	return n.CallContext(context.Background(), pid, method, params, nil)
}

// CallContext is CallSync with a context and options, which may be nil. When
// the context ends the wait ends at once, and the handler's context ends too.
func (n *OWTPNode) CallContext(ctx context.Context, pid, method string, params any, opts *CallOptions) (*Response, error) {
	p, err := n.newRequest(wire.Request, pid, method, params, opts)
	if err != nil {
		return nil, err
	}
	return n.finishCall(ctx, pid, p, opts)
}

// Notify sends a one-way message: the peer's handler runs, and nobody hears
// whether it did. nil means that the transport took it. It is never sent twice.
func (n *OWTPNode) Notify(ctx context.Context, pid, method string, params any) error {
	p, err := n.newRequest(wire.OneWay, pid, method, params, nil)
	if err != nil {
		return err
	}
	_, err = n.finishCall(ctx, pid, p, nil)
	return err
}

// ConnectAndCall is Connect and Call in one.
func (n *OWTPNode) ConnectAndCall(pid string, cfg ConnectConfig, method string, params any, sync bool, f func(resp Response)) error {
	if err := n.Connect(pid, cfg); err != nil {
		return err
	}
	return n.Call(pid, method, params, sync, f)
}

func (n *OWTPNode) newRequest(kind wire.Kind, pid, method string, params any, opts *CallOptions) (*wire.Packet, error) {
	if n.err != nil {
		return nil, n.err
	}
	if n.ctx.Err() != nil {
		return nil, &Error{Status: ErrDenialOfService, Msg: "the node is closed", Method: clip(method, 64), cause: errNodeClosed}
	}
	name := ""
	if opts != nil {
		name = opts.Format
	}
	if name == "" {
		name = n.formatTo(pid)
	}
	format, err := codec.Lookup(name)
	if err != nil {
		return nil, &Error{Status: ErrUnsupportedType, Msg: err.Error(), Method: clip(method, 64), cause: err}
	}
	data, err := encodeData(format, params)
	if err != nil {
		return nil, err
	}
	p := wire.NewPacket(wire.Packet{Kind: kind, Method: method, Data: data, Format: wireFormat(format)})
	if _, err := io.ReadFull(n.local.Rand, p.Nonce[:]); err != nil {
		return nil, err
	}
	if opts != nil {
		p.SetMeta(opts.Meta)
		p.Trace = opts.Trace
		if opts.CallKey != nil {
			if len(opts.CallKey) != len(p.CallKey) || bytes.Equal(opts.CallKey, make([]byte, len(p.CallKey))) {
				return nil, newError(ErrBadRequest, "CallOptions.CallKey has %d bytes; it must have %d, not all zero", len(opts.CallKey), len(p.CallKey))
			}
			p.CallKey = wire.Nonce(opts.CallKey)
		}
	}
	if err := p.Validate(); err != nil {
		return nil, &Error{Status: ErrBadRequest, Msg: err.Error(), Method: clip(method, 64), cause: err}
	}
	if len(data)+packetOverhead > n.cfg.Limits.MaxMessage {
		return nil, newError(ErrTooLarge, "the parameters of %q have %d bytes; a message may have %d with everything around them", method, len(data), n.cfg.Limits.MaxMessage)
	}
	return p, nil
}

// reachable reports whether there is somebody to send to.
func (n *OWTPNode) reachable(pid string) bool {
	return n.remoteOf(pid) != nil || n.linkOf(pid) != nil || n.callerOf(pid) != nil
}

// finishCall sends a request and makes a Response of the answer.
func (n *OWTPNode) finishCall(ctx context.Context, pid string, p *wire.Packet, opts *CallOptions) (*Response, error) {
	timeout := n.timeout()
	if opts != nil && opts.Timeout > 0 {
		timeout = opts.Timeout
	}
	c := newCallContext(ctx, time.Now().Add(timeout))
	defer c.end()
	p.Remaining = uint64(max(time.Until(c.deadline).Milliseconds(), 1))
	return n.send(c, pid, p, opts)
}

// send brings a request to a peer over whatever connects it and waits for the
// verified answer. It is the mirror image of serve and run.
func (n *OWTPNode) send(ctx *callContext, pid string, p *wire.Packet, opts *CallOptions) (*Response, error) {
	var out outcome
	var err error
	repeatable := opts != nil && opts.Repeatable
	r := n.remoteOf(pid)
	if r == nil && n.linkOf(pid) == nil {
		r = n.callerOf(pid)
	}
	switch {
	case r != nil && r.exch != nil:
		var leave func()
		if leave, err = n.join(ctx.end); err == nil {
			out, err = r.exchange(ctx, p, repeatable)
			leave()
		}
	case r != nil:
		out, err = r.transact(ctx, p, repeatable)
	default:
		out, err = n.callBack(ctx, pid, p)
	}
	if err == nil && p.Kind == wire.Heartbeat {
		err = isPong(out.resp, pid, out.proved)
	}
	var resp *Response
	if err == nil {
		resp, err = n.newResponse(out)
	}
	if err != nil {
		return nil, n.callError(ctx, err, out.sent, pid, p)
	}
	if out.received {
		if out.req != p {
			out.req.Release()
		}
		out.resp.Release()
		p.Release()
	}
	return resp, nil
}

// callBack calls a peer that dialled this node. A connection that is replaced
// in between is no reason to fail: nothing was sent on it.
func (n *OWTPNode) callBack(ctx context.Context, pid string, p *wire.Packet) (out outcome, err error) {
	for range 3 {
		l := n.linkOf(pid)
		if l == nil || l.bar != nil {
			return out, unknownPeer(pid)
		}
		if !l.usable() { // since we looked, perhaps: another may have taken its place
			err = newError(ErrNetworkDisconnected, "the peer's connection is closing")
			continue
		}
		out = outcome{req: p, proved: l.send != nil}
		out.resp, out.sent, err = l.transact(ctx, p)
		out.received = l.v1 == nil && out.resp != nil
		if out.sent || err == nil || ctx.Err() != nil || l.usable() && !errors.Is(err, errReplaced) {
			return out, err
		}
	}
	return out, err
}

// transact is call or notify, by the kind of packet.
func (l *link) transact(ctx context.Context, p *wire.Packet) (*wire.Packet, bool, error) {
	if p.Kind == wire.OneWay {
		err := l.notify(ctx, p)
		return nil, err == nil, err
	}
	return l.call(ctx, p)
}

func (n *OWTPNode) callError(ctx context.Context, err error, sent bool, pid string, p *wire.Packet) error {
	if cause := context.Cause(n.ctx); cause != nil {
		err = newError(ErrNetworkDisconnected, "the node is closed: %w", cause)
	} else if ctx.Err() != nil && !errors.As(err, new(*Error)) {
		err = ctx.Err() // what a lower layer made of it says less
	}
	e := *localError(err, sent)
	e.Method, e.PeerID = p.Method, pid
	e.MayHaveRun = e.MayHaveRun || sent && !e.Proved
	return &e
}

func (n *OWTPNode) newResponse(out outcome) (*Response, error) {
	resp := out.resp
	if resp == nil {
		return &Response{}, nil
	}
	result, err := n.resultOf(out.req, resp)
	if err != nil {
		return nil, err
	}
	r := &Response{
		Status: resp.Status, Msg: resp.Msg, Result: result, came: true,
		proved: out.proved, refused: out.proved && resp.Reason == wire.ReasonNotRun,
	}
	if resp.Signature != nil {
		r.evidence = evidence(out.req, resp)
	}
	return r, nil
}
