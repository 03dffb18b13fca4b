package session

import (
	"fmt"
	"sync"
)

const (
	// breakAfter is how many operations in a row must time out before the
	// others stop waiting. Five: one lost packet or one slow write is not
	// enough, and with some callers it is reached within one timeout.
	breakAfter = 5

	// mostWaiting is the most operations that wait for one store. 4096: as
	// many as a node runs requests; each holds a goroutine and a request.
	mostWaiting = 4096
)

// A breaker keeps operations from queueing for a store that does not answer.
//
//   - Closed, it lets up to mostWaiting operations run at one time.
//   - After breakAfter timeouts in a row it is open: operations fail at once,
//     but for one at a time, the probe.
//   - The first answer closes it, that of the probe or of an operation that
//     began earlier. "No such record" is an answer too.
//
// An operation that its own caller gave up says nothing about the store, or
// whoever hangs up early could open it. It has no clock: a timeout is what an
// operation reports. It is safe for concurrent use.
type breaker struct {
	mu      sync.Mutex
	waiting int
	silent  int // timeouts in a row
	probing bool
	answers uint64 // rows of timeouts that an answer has ended
}

// A ticket is the right to ask the store once.
type ticket struct {
	probe   bool
	answers uint64
}

// An outcome is what an operation says about its store.
type outcome int

const (
	nothing outcome = iota // the caller gave up, or the client failed by itself
	answered
	silent
)

func (b *breaker) enter() (ticket, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := b.silent >= breakAfter
	switch {
	case b.waiting >= mostWaiting:
		return ticket{}, fmt.Errorf("%w: %d operations wait for it", ErrNotAsked, b.waiting)
	case open && b.probing:
		return ticket{}, fmt.Errorf("%w: the last %d operations timed out", ErrNotAsked, b.silent)
	}
	b.waiting++
	b.probing = b.probing || open
	return ticket{open, b.answers}, nil
}

func (b *breaker) leave(t ticket, o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
	if t.probe {
		b.probing = false
	}
	switch {
	case o == answered && b.silent > 0:
		b.silent = 0
		b.answers++
	// What began before the last answer belongs to a row that has ended.
	case o == silent && t.answers == b.answers:
		b.silent++
	}
}

// broken reports whether operations fail at once now.
func (b *breaker) broken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent < breakAfter {
		return nil
	}
	return fmt.Errorf("%w: the last %d operations timed out", ErrNotAsked, b.silent)
}
