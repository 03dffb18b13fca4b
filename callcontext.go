package owtp

import (
	"context"
	"sync"
	"time"
)

// A callContext is the context of one call of the program's, or of one exchange
// that is answered: its parent's with a deadline, or with an end when the node
// ends. Most often nobody but the call itself waits for its end, so that a context
// of the standard library's, its timer and its entry at the parent are made only
// when somebody else does. Who made it calls end.
type callContext struct {
	parent   context.Context
	deadline time.Time
	node     context.Context // in place of a deadline

	mu     sync.Mutex
	std    context.Context
	cancel func() // ends std
	ended  bool
}

func newCallContext(parent context.Context, deadline time.Time) *callContext {
	if d, ok := parent.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return &callContext{parent: parent, deadline: deadline}
}

// newExchangeContext is for a parent that knows nothing of the node.
func newExchangeContext(parent, node context.Context) *callContext {
	return &callContext{parent: parent, node: node}
}

// Deadline implements [context.Context].
func (c *callContext) Deadline() (time.Time, bool) {
	if c.node != nil {
		return c.parent.Deadline()
	}
	return c.deadline, true
}

// Done implements [context.Context].
func (c *callContext) Done() <-chan struct{} { return c.standard().Done() }

// Err implements [context.Context]. Whoever has seen the parent end, or the
// deadline pass, may have seen it before the standard library's context did.
func (c *callContext) Err() error {
	if err := c.parent.Err(); err != nil {
		return err
	}
	switch {
	case c.node != nil && c.node.Err() != nil:
		return context.Canceled
	case c.node == nil && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return context.Canceled
	}
	return nil
}

// Value implements [context.Context]. The standard library asks for its own
// contexts by it, where that of the parent would be the wrong one.
func (c *callContext) Value(key any) any {
	c.mu.Lock()
	std := c.std
	c.mu.Unlock()
	if std != nil {
		return std.Value(key)
	}
	return c.parent.Value(key)
}

// standard returns the context of the standard library's.
func (c *callContext) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.std != nil {
		return c.std
	}
	if c.node != nil {
		std, cancel := context.WithCancelCause(c.parent)
		stop := context.AfterFunc(c.node, func() { cancel(context.Cause(c.node)) })
		c.std, c.cancel = std, func() { stop(); cancel(nil) }
	} else {
		c.std, c.cancel = context.WithDeadline(c.parent, c.deadline)
	}
	if c.ended {
		c.cancel()
	}
	return c.std
}

// end ends the context.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
