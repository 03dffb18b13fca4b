package httpguard

import "sync"

// tally counts who is inside and lets one wait until all have left. A
// sync.WaitGroup would not do: it forbids that somebody enters while the last
// one leaves and somebody else waits.
type tally struct {
	mu    sync.Mutex
	left  *sync.Cond
	count int
	shut  bool
}

func newTally() *tally {
	t := new(tally)
	t.left = sync.NewCond(&t.mu)
	return t
}

// enter is refused once shutAndWait was called.
func (t *tally) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut {
		return false
	}
	t.count++
	return true
}

// force counts what is inside already and cannot be refused.
func (t *tally) force() {
	t.mu.Lock()
	t.count++
	t.mu.Unlock()
}

func (t *tally) leave() {
	t.mu.Lock()
	t.count--
	if t.count == 0 {
		t.left.Broadcast()
	}
	t.mu.Unlock()
}

func (t *tally) shutAndWait() {
	t.mu.Lock()
	t.shut = true
	for t.count > 0 {
		t.left.Wait()
	}
	t.mu.Unlock()
}
