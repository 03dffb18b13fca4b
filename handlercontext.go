package owtp

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A handlerContext is what Context.Context returns. Most handlers never wait for
// its end: timers and registrations are made when one does, in a context of the
// standard library's.
//
// It ends with its deadline, with its parent, which ends with the node, and when
// the handler has returned. That of a recorded call does not end with its parent
// at once: the next attempt wants its answer.
type handlerContext struct {
	node     *OWTPNode
	parent   context.Context
	deadline time.Time
	claim    *claim  // nil: it ends with its parent
	request  Context // for FromContext; here so that both are one allocation

	mu     sync.Mutex
	std    context.Context
	cancel context.CancelCauseFunc // of std
	stop   func()                  // releases what std holds
	ended  error                   // why, if it ended before std was made
}

var errReturned = fmt.Errorf("the handler has returned: %w", context.Canceled)

// handlerContext returns the context of a handler. Who runs it calls end.
func (n *OWTPNode) handlerContext(parent context.Context, p *wire.Packet) *handlerContext {
	h := &handlerContext{node: n, parent: parent, deadline: time.Now().Add(n.remaining(p))}
	if d, ok := parent.Deadline(); ok && d.Before(h.deadline) {
		h.deadline = d
	}
	return h
}

// claimedContext is the same for a recorded call. A queue's exchange breaks with
// the endpoint only, after which there is no way for an answer.
func (n *OWTPNode) claimedContext(parent context.Context, kind transport.Kind, p *wire.Packet, c *claim) *handlerContext {
	if kind == transport.MQ {
		return n.handlerContext(parent, p)
	}
	return &handlerContext{node: n, parent: parent, deadline: time.Now().Add(n.remaining(p)), claim: c}
}

// Deadline implements [context.Context].
func (h *handlerContext) Deadline() (time.Time, bool) { return h.deadline, true }

// Done implements [context.Context].
func (h *handlerContext) Done() <-chan struct{} { return h.standard().Done() }

// Err implements [context.Context].
func (h *handlerContext) Err() error { return h.standard().Err() }

// Value implements [context.Context]. The standard library asks for its own
// contexts by it, where that of the parent would be the wrong one.
func (h *handlerContext) Value(key any) any {
	if key == (requestKey{}) {
		return &h.request
	}
	h.mu.Lock()
	fresh := h.std == nil && h.ended == nil
	h.mu.Unlock()
	if fresh && time.Now().Before(h.deadline) && h.parent.Err() == nil {
		return h.parent.Value(key)
	}
	return h.standard().Value(key)
}

// Format prints the deadline: what the fields lead to is not for printing.
func (h *handlerContext) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "owtp.Context(deadline %s)", h.deadline.Format(time.RFC3339Nano))
}

// standard returns the context of the standard library's.
func (h *handlerContext) standard() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.std != nil {
		return h.std
	}
	base := h.parent
	if h.claim != nil {
		base = context.WithoutCancel(base)
	}
	ctx, cancel := context.WithCancelCause(base)
	if h.ended != nil {
		cancel(h.ended)
		h.std = ctx
		return ctx
	}
	std, stop := context.WithDeadline(ctx, h.deadline)
	h.std, h.cancel, h.stop = std, cancel, stop
	if h.claim != nil {
		gone := context.AfterFunc(h.parent, h.orphaned)
		h.stop = func() {
			gone()
			stop()
		}
	}
	return std
}

// endFor ends the context for a reason.
func (h *handlerContext) endFor(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.cancel != nil:
		h.cancel(why)
	case h.ended == nil:
		h.ended = why
	}
}

// end ends the context once the handler has returned.
func (h *handlerContext) end() {
	h.endFor(errReturned)
	h.mu.Lock()
	stop := h.stop
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// orphaned ends the context of a recorded call whose exchange broke, after a
// while in which nobody has come to wait for it. A caller that really cancels
// says so.
func (h *handlerContext) orphaned() {
	t := time.NewTimer(orphanPatience)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.claim.done:
		return
	case <-h.node.ctx.Done():
		h.endFor(errNodeClosed)
		return
	}
	if h.claim.waiting.Load() == 0 && !h.node.wantedElsewhere(h.claim) {
		h.endFor(context.Cause(h.parent))
	}
}
