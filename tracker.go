package owtp

import (
	"context"
	"sync"
)

// A tracker counts what runs and lets others wait for the end, with a bound. It
// is a sync.WaitGroup that may be waited for while more begins, and that says
// no once it is closed.
type tracker struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when n falls to zero; nil if nobody waits
}

// begin counts one more and reports whether that is still allowed.
func (t *tracker) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.n++
	return true
}

func (t *tracker) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// close lets nothing more begin.
func (t *tracker) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
}

// wait returns when nothing runs, or when ctx ends.
func (t *tracker) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A quota bounds what runs at one time under a name, a proved peer or, where
// nobody is proved, an address; and how many octets it holds, of which one name
// may have a quarter. A quarter of everything is left to the named peers.
type quota struct {
	perName, most, octets int
	named                 *named

	mu     sync.Mutex
	used   map[string]holding
	inUse  holding
	others holding // of inUse, what peers that are not named have
}

// A holding is what somebody has. Who is named is decided with the first thing
// that he takes, and stays until he has given everything back.
type holding struct {
	n, octets int
	named     bool
}

func newQuota(perName, most, octets int, named *named) *quota {
	return &quota{perName: perName, most: most, octets: octets, named: named, used: make(map[string]holding)}
}

func (q *quota) take(name string, octets int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	h, ok := q.used[name]
	if !ok {
		h.named = q.named.has(name)
	}
	switch {
	case q.inUse.n >= q.most || h.n >= q.perName:
		return false
	case q.inUse.octets+octets > q.octets || h.octets+octets > q.octets/4:
		return false
	case !h.named && (q.others.n >= q.named.part(q.most) || q.others.octets+octets > q.named.part(q.octets)):
		return false
	}
	h.add(1, octets)
	q.used[name] = h
	q.inUse.add(1, octets)
	if !h.named {
		q.others.add(1, octets)
	}
	return true
}

func (h *holding) add(n, octets int) {
	h.n += n
	h.octets += octets
}

func (q *quota) give(name string, octets int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.used[name]
	if h.add(-1, -octets); h.n <= 0 {
		delete(q.used, name)
	} else {
		q.used[name] = h
	}
	q.inUse.add(-1, -octets)
	if !h.named {
		q.others.add(-1, -octets)
	}
}
