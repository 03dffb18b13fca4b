package owtp

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// closePatience is how long Close waits for handlers that do not heed their
// context.
const closePatience = 10 * time.Second

var errHandlerRuns = errors.New("owtp: Close: a handler does not heed its context and still runs")

// Close ends the node at once: handlers' contexts end, connections and
// listeners close, calls end with status 430. It returns when nothing of the
// node runs any more, or after ten seconds if a handler does not heed its
// context. Calling it again does nothing but wait.
//
// Within a handler or a callback, of whichever node, it waits for nothing, or it
// would wait for itself: what is left ends once that has returned. The answer
// of such a handler is lost; Shutdown sends it.
func (n *OWTPNode) Close() error {
	if n.err != nil {
		return n.err
	}
	n.ending.Do(func() {
		n.closing.Store(true)
		n.cancel(errNodeClosed)
		go n.end() // for closePatience at most
	})
	if inCallback() {
		return nil
	}
	<-n.ended
	return n.endErr
}

func (n *OWTPNode) end() {
	defer close(n.ended)
	n.mu.Lock()
	var listeners []*listener
	for l := range n.listeners {
		listeners = append(listeners, l)
	}
	clear(n.listeners)
	var remotes []*remote
	for _, r := range n.remotes {
		remotes = append(remotes, r)
	}
	clear(n.remotes)
	clear(n.byID)
	clear(n.callers)
	links := n.allLinks()
	n.mu.Unlock()
	for _, l := range links {
		l.fail(errNodeClosed)
	}
	for _, r := range remotes {
		r.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	var sockets tracker
	for _, l := range listeners {
		sockets.begin()
		go func() { // waits for the handlers of its exchanges
			defer sockets.end()
			l.close()
		}()
	}
	n.tasks.close()
	if n.tasks.wait(ctx) != nil || sockets.wait(ctx) != nil {
		n.endErr = errHandlerRuns
	}
	n.state.close()
	n.mu.Lock()
	for v := range n.v1Sessions {
		v.erase()
	}
	clear(n.v1Sessions)
	n.closeOwnStore()
	clear(n.cfg.StoreKey)
	clear(n.cfg.PreviousStoreKey)
	n.mu.Unlock()
}

// Shutdown ends the node gently: it stops accepting, tells connected peers that
// it goes away, lets requests and calls finish, answers new ones with 503, and
// then closes. When ctx ends it closes at once and returns the context's error.
//
// At a message queue other replicas of the node get what it has not begun, and
// its callers go over to them with their next attempt, within the same call.
// Where replicas share no store that takes two seconds after the last request.
//
// Within a handler or a callback, of whichever node, it begins that and returns
// nil, or it would wait for itself. Then only the deadline of ctx counts, or
// TimeoutSEC, and not that it is cancelled, as a handler's context is.
func (n *OWTPNode) Shutdown(ctx context.Context) error {
	if n.err != nil {
		return n.err
	}
	n.closing.Store(true)
	if !inCallback() {
		return n.shutdown(ctx)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(n.timeout())
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	go func() { // until then and closePatience at most
		defer cancel()
		if err := n.shutdown(ctx); err != nil {
			n.log.Warn("Shutdown within a handler has not gone gently", "err", err)
		}
	}()
	return nil
}

func (n *OWTPNode) shutdown(ctx context.Context) error {
	n.mu.Lock()
	var ends []transport.Listener
	for l := range n.listeners {
		ends = append(ends, l.tl)
	}
	for _, r := range n.remotes {
		if e, ok := r.exch.(transport.Endpoint); ok && !r.passive { // where the peer calls back
			ends = append(ends, e)
		}
	}
	links := n.allLinks()
	n.mu.Unlock()
	for _, l := range links {
		l.announce(wire.ReasonShutdown)
	}
	// All at one time: none of them is to take requests while another finishes.
	errs := make([]error, len(ends))
	var all sync.WaitGroup
	for i, e := range ends {
		all.Go(func() { errs[i] = e.Shutdown(ctx) })
	}
	all.Wait()
	err := errors.Join(errs...)
	for _, l := range links {
		err = errors.Join(err, l.finish(ctx))
	}
	err = errors.Join(err, n.oneWay.wait(ctx))
	if e := n.Close(); err == nil {
		err = e
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// within makes a call of the program's one of the node's tasks: Close ends it,
// and waits for it before the state is closed that it uses.
func (n *OWTPNode) within(ctx context.Context) (_ context.Context, leave func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	left, err := n.join(func() { cancel(errNodeClosed) })
	return ctx, func() {
		left()
		cancel(nil)
	}, err
}

// join is within for a context that has a cancel of its own.
func (n *OWTPNode) join(cancel func()) (leave func(), err error) {
	if !n.tasks.begin() {
		cancel()
		return nil, errNodeClosed
	}
	stop := context.AfterFunc(n.ctx, cancel)
	return func() {
		stop()
		n.tasks.end()
	}, nil
}

// during runs f within, and says so if it failed because the node was closed.
func (n *OWTPNode) during(ctx context.Context, f func(context.Context) error) error {
	ctx, leave, err := n.within(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err = f(ctx); err != nil && n.closing.Load() {
		return errNodeClosed
	}
	return err
}

// callbackFrames are the functions under which everything of the program's runs
// that a node calls.
var callbackFrames = map[string]bool{
	nameOf((*router).serve):           true,
	nameOf((*OWTPNode).guardCallback): true,
}

func nameOf(f any) string { return runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name() }

// inCallback reports whether the caller runs within a handler or a callback,
// which the stack knows and a method without a context does not. A goroutine
// that a handler has started does not.
func inCallback() bool {
	pcs := make([]uintptr, 64)
	for skip := 2; ; skip += len(pcs) {
		got := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:got])
		for more := got > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if callbackFrames[f.Function] {
				return true
			}
		}
		if got < len(pcs) {
			return false
		}
	}
}
