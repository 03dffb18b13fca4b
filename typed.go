package owtp

import (
	"context"
	"errors"
	"reflect"
)

// Typed calls: Go values in and out, in every format and over every transport.

// Handle binds a typed handler to a method, as [OWTPNode.HandleFunc] does an
// untyped one. In and Out are what encoding/json decodes and encodes, structs with
// JSON tags above all, or Protobuf messages; an In that is a pointer is never nil.
// Parameters that do not fit answer 400 with the field's name, and the handler
// does not run.
//
// An error that is, or wraps, an [*Error] that the program made is the answer:
// status, message and details. That of its context, once it has ended, is answered
// with status 408. Any other one, also that of a call of the handler's
// own, is logged and answers 500, and the caller learns nothing of it.
// [FromContext] gives the request to who needs more of it.
func Handle[In, Out any](n *OWTPNode, method string, f func(ctx context.Context, in In) (Out, error), opts ...HandleOption) error {
	if f == nil {
		return n.HandleFunc(method, nil, opts...)
	}
	return n.HandleFunc(method, func(c *Context) {
		in := new(In)
		if err := c.Decode(in); err != nil {
			c.fail(err)
			return
		}
		if v := reflect.ValueOf(in).Elem(); v.Kind() == reflect.Pointer && v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		out, err := f(c.ctx, *in)
		if err != nil {
			c.fail(err)
			return
		}
		c.Response(out, StatusSuccess, "")
	}, opts...)
}

// fail answers with a handler's error.
func (c *Context) fail(err error) {
	var e *Error
	if errors.As(err, &e) && e.forCaller() {
		c.Response(e.Details, e.Status, e.Msg)
		return
	}
	if c.ctx.Err() != nil && errors.Is(err, c.ctx.Err()) { // the time that the caller gave is over, or the caller is
		c.Response(nil, ErrRequestTimeout, "the handler ran out of time")
		return
	}
	c.node.log.Error("handler failed", "method", c.Method, "peer", c.PID, "err", err)
	c.Response(nil, ErrInternalServerError, "handler failed")
}

// forCaller reports whether the program made the error to be told to a caller.
// What this library says about another call names peers and addresses that are
// none of this caller's business.
func (e *Error) forCaller() bool {
	return e != nil && e.cause == nil && e.Method == "" && e.PeerID == "" && !e.came && e.Status != 0 && e.Status != StatusSuccess
}

// Invoke calls a method of a connected peer, by name or ID, and decodes its result.
// in is anything that encoding/json encodes or a Protobuf message. opts are none
// or one, which may be nil.
//
// [errors.As] finds an [*Error] in every error: what the peer answered, with its
// details, as well as what this side has found. A result that does not fit into
// Out is status 501.
func Invoke[Out any](ctx context.Context, n *OWTPNode, pid, method string, in any, opts ...*CallOptions) (Out, error) {
	out, none := new(Out), *new(Out)
	var o *CallOptions
	switch len(opts) {
	case 0:
	case 1:
		o = opts[0]
	default:
		return none, newError(ErrBadRequest, "Invoke was given %d CallOptions; one call has one", len(opts))
	}
	resp, err := n.CallContext(ctx, pid, method, in, o)
	if err == nil {
		err = resp.Err()
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		if e.Method == "" { // a Response does not know whose it is
			about := *e
			about.Method, about.PeerID = clip(method, 64), pid
			return none, &about
		}
		return none, err
	case err != nil:
		return none, &Error{Status: ErrBadRequest, Msg: bare{err}.Error(), Method: clip(method, 64), PeerID: pid, cause: err}
	}
	if err := resp.Decode(out); err != nil {
		e := newError(ErrResponseMethodDiffer, "the result does not fit into %s: %w", reflect.TypeFor[Out](), err)
		e.Method, e.PeerID, e.MayHaveRun = method, pid, true
		return none, e
	}
	return *out, nil
}

type requestKey struct{}

// FromContext returns the request that a handler's context, or one made of it,
// belongs to; nil for any other.
func FromContext(ctx context.Context) *Context {
	c, _ := ctx.Value(requestKey{}).(*Context)
	return c
}
