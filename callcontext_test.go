package owtp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestCallContext: whoever looks, and whenever, sees the end of a call for what it
// is, and never an end without a reason.
func TestCallContext(t *testing.T) {
	type key struct{}
	for name, e := range map[string]struct {
		end func(c *callContext, cancelParent func())
		err error
	}{
		"with the call":     {func(c *callContext, _ func()) { c.end() }, context.Canceled},
		"with its parent":   {func(_ *callContext, cancel func()) { cancel() }, context.Canceled},
		"with its deadline": {func(*callContext, func()) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
	} {
		for _, before := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
				defer cancel()
				c := newCallContext(parent, time.Now().Add(time.Minute))
				defer c.end()
				if before {
					c.Done()
				}
				child, stop := context.WithTimeout(c, time.Hour)
				defer stop()
				if c.Err() != nil || child.Err() != nil || c.Value(key{}) != "v" {
					t.Errorf("%s: %v before the end", name, c.Err())
				}
				e.end(c, cancel)
				if err := c.Err(); !errors.Is(err, e.err) {
					t.Errorf("%s: ended with %v", name, err)
				}
				synctest.Wait()
				<-c.Done()
				if <-child.Done(); !errors.Is(child.Err(), e.err) {
					t.Errorf("%s: the child ended with %v", name, child.Err())
				}
			})
		}
	}
	parent, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	want, _ := parent.Deadline()
	if got, ok := newCallContext(parent, time.Now().Add(time.Minute)).Deadline(); !ok || !got.Equal(want) {
		t.Errorf("deadline %v, want the parent's %v", got, want)
	}
}
