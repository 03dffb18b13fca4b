package owtp

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/owtp-go/owtp/internal/wire"
)

// A router finds the handler of a method and runs it within the middleware.
// Reading needs no lock.
type router struct {
	mu         sync.Mutex // orders writers
	routes     atomic.Pointer[map[string]*route]
	middleware []func(HandlerFunc) HandlerFunc
	prepare    HandlerFunc
	finish     HandlerFunc
	chain      atomic.Pointer[HandlerFunc]
}

type route struct {
	handle     HandlerFunc
	repeatable bool
}

// A HandleOption says more about a method at its registration.
type HandleOption func(*route)

// Repeatable says that running the method twice does no harm. A call to it
// whose outcome is unknown may be run again.
func Repeatable() HandleOption { return func(r *route) { r.repeatable = true } }

// HandleFunc binds a handler to a method, for every transport. A name has 1 to
// 128 bytes of printable UTF-8; names that begin with "owtp." or "internal_"
// are the protocol's own. A nil handler and a name that is taken are errors,
// and nothing changes.
func (n *OWTPNode) HandleFunc(method string, handler HandlerFunc, opts ...HandleOption) error {
	if n.err != nil {
		return n.err
	}
	if err := checkMethod(method); err != nil {
		return err
	}
	if handler == nil {
		return fmt.Errorf("owtp: the handler of method %q is nil", method)
	}
	return n.router.bind(method, handler, opts...)
}

func (r *router) bind(method string, handler HandlerFunc, opts ...HandleOption) error {
	rt := &route{handle: handler}
	for _, o := range opts {
		o(rt)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	routes := make(map[string]*route)
	if old := r.routes.Load(); old != nil {
		maps.Copy(routes, *old)
	}
	if routes[method] != nil {
		return fmt.Errorf("owtp: method %q has a handler already", method)
	}
	routes[method] = rt
	r.routes.Store(&routes)
	return nil
}

func checkMethod(method string) error {
	switch {
	case method == "":
		return errors.New("owtp: the method's name is empty")
	case len(method) > wire.MaxMethod:
		return fmt.Errorf("owtp: the method's name %.20q... has %d bytes; at most %d", method, len(method), wire.MaxMethod)
	case !utf8.ValidString(method) || strings.ContainsFunc(method, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("owtp: the method's name %q is not printable UTF-8", method)
	case strings.HasPrefix(method, "owtp.") || strings.HasPrefix(method, "internal_"):
		return fmt.Errorf("owtp: method %q: names that begin with \"owtp.\" or \"internal_\" are reserved", method)
	}
	return nil
}

// HandlePrepareFunc sets what runs before every handler. If it calls
// ResponseStopRun, the handler does not run.
func (n *OWTPNode) HandlePrepareFunc(handler HandlerFunc) { n.router.set(&n.router.prepare, handler) }

// HandleFinishFunc sets what runs after every handler, also if it failed or did
// not run. It may still change ctx.Resp.
func (n *OWTPNode) HandleFinishFunc(handler HandlerFunc) { n.router.set(&n.router.finish, handler) }

func (r *router) set(stage *HandlerFunc, handler HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*stage = handler
	r.fold()
}

// Use adds middleware around handlers; what is added first is outermost.
// Prepare runs before all of it, finish after.
func (n *OWTPNode) Use(middleware ...func(next HandlerFunc) HandlerFunc) {
	r := &n.router
	r.mu.Lock()
	defer r.mu.Unlock()
	r.middleware = append(r.middleware, middleware...)
	r.fold()
}

// fold makes one function of all stages.
func (r *router) fold() {
	run := r.dispatch
	for i := len(r.middleware) - 1; i >= 0; i-- {
		if m := r.middleware[i]; m != nil {
			run = m(run)
		}
	}
	prepare, finish := r.prepare, r.finish
	var all HandlerFunc = func(ctx *Context) {
		if finish != nil {
			defer guard(ctx, finish)
		}
		if prepare != nil {
			guard(ctx, prepare)
		}
		if !ctx.stopped {
			guard(ctx, run)
		}
	}
	r.chain.Store(&all)
}

// dispatch runs the handler itself.
func (r *router) dispatch(ctx *Context) {
	if ctx.stopped {
		return
	}
	if rt := r.route(ctx.Method); rt != nil {
		rt.handle(ctx)
		return
	}
	ctx.missing = true
	ctx.Response(nil, ErrNotFoundMethod, "no such method")
}

func (r *router) route(method string) *route {
	if routes := r.routes.Load(); routes != nil {
		return (*routes)[method]
	}
	return nil
}

// serve runs all stages.
func (r *router) serve(ctx *Context) { (*r.chain.Load())(ctx) }

// guard turns a panic into status 500. The stack goes to the log of this node;
// the caller learns nothing of it.
func guard(ctx *Context, run HandlerFunc) {
	defer func() {
		if v := recover(); v != nil {
			ctx.node.log.Error("handler panicked", "method", ctx.Method, "peer", ctx.PID, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			ctx.Response(nil, ErrInternalServerError, "handler failed")
			ctx.stopped = true
		}
	}()
	run(ctx)
}
