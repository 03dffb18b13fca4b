package owtp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// TestHandlerContext: whoever looks, and whenever, sees what a context of the
// standard library's would show.
func TestHandlerContext(t *testing.T) {
	type key struct{}
	ends := map[string]struct {
		end    func(h *handlerContext, cancelParent context.CancelCauseFunc)
		err    error
		cause  error
		orphan bool // the context of a recorded call ends later
	}{
		"with the handler":  {func(h *handlerContext, _ context.CancelCauseFunc) { h.end() }, context.Canceled, errReturned, false},
		"by a cancel":       {func(h *handlerContext, _ context.CancelCauseFunc) { h.endFor(errCancelled) }, context.Canceled, errCancelled, false},
		"with its parent":   {func(_ *handlerContext, cancel context.CancelCauseFunc) { cancel(io.EOF) }, context.Canceled, io.EOF, true},
		"with its deadline": {func(*handlerContext, context.CancelCauseFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded, context.DeadlineExceeded, false},
	}
	looks := map[string]func(context.Context){
		"not at all":   func(context.Context) {},
		"for a value":  func(ctx context.Context) { ctx.Value(key{}) },
		"for its end":  func(ctx context.Context) { ctx.Done() },
		"with a child": func(ctx context.Context) { ctx, cancel := context.WithCancel(ctx); defer cancel(); _ = ctx.Err() },
	}
	for how, e := range ends {
		for before, look := range looks {
			for _, recorded := range []bool{false, true} {
				t.Run(how+"/looked at "+before+"/recorded "+map[bool]string{true: "yes", false: "no"}[recorded], func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						n := contextNode(t)
						parent, cancel := context.WithCancelCause(context.WithValue(n.ctx, key{}, "v"))
						defer cancel(nil)
						p := &wire.Packet{Remaining: 60_000}
						h := n.handlerContext(parent, p)
						if recorded {
							h = n.claimedContext(parent, transport.HTTP, p, &claim{done: make(chan struct{})})
						}
						defer h.end()
						look(h)
						if h.Value(key{}) != "v" {
							t.Error("a value of the parent's is gone")
						}
						if before != "not at all" && h.Err() != nil {
							t.Errorf("it has ended already: %v", h.Err())
						}
						e.end(h, cancel)
						synctest.Wait()
						if recorded && e.orphan {
							if h.Err() != nil {
								t.Errorf("ended with its exchange: %v", h.Err())
							}
							time.Sleep(orphanPatience)
							synctest.Wait()
						}
						if got := context.Cause(h); !errors.Is(got, e.cause) {
							t.Errorf("cause %v, want %v", got, e.cause)
						}
						if got := h.Err(); !errors.Is(got, e.err) {
							t.Errorf("ended with %v, want %v", got, e.err)
						}
						select {
						case <-h.Done():
						default:
							t.Error("Done is open")
						}
						child, stop := context.WithTimeout(h, time.Hour)
						defer stop()
						if child.Err() == nil {
							t.Error("a child lives longer")
						}
					})
				})
			}
		}
	}
}

// TestHandlerContextNeedsNothing: who does not look costs no timer, no goroutine
// and no entry at the parent; a child does not cost a goroutine either.
func TestHandlerContextNeedsNothing(t *testing.T) {
	n := contextNode(t)
	p := &wire.Packet{Remaining: 60_000}
	if got := testing.AllocsPerRun(100, func() {
		h := n.handlerContext(n.ctx, p)
		h.Deadline()
		h.Value("x")
		h.end()
	}); got > 1 {
		t.Errorf("%v allocations, want 1 at most", got)
	}
	before := runtime.NumGoroutine()
	h := n.handlerContext(n.ctx, p)
	child, cancel := context.WithCancel(h)
	defer cancel()
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("a child costs %d goroutines", after-before)
	}
	h.endFor(errCancelled)
	<-child.Done()
	if got := context.Cause(child); !errors.Is(got, errCancelled) {
		t.Errorf("the child's cause is %v", got)
	}
	h.end()
}

// contextNode is as much of a node as a context needs.
func contextNode(t *testing.T) *OWTPNode {
	n := &OWTPNode{cfg: new(NodeConfig), state: new(state), log: slog.New(slog.DiscardHandler)}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	t.Cleanup(func() { n.cancel(errNodeClosed) })
	return n
}
