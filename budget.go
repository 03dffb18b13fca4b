package owtp

import (
	"context"
	"errors"
	"sync/atomic"
)

// A budget bounds expensive work: some of it runs, some waits, the rest is
// turned away at once.
type budget struct {
	slots   chan struct{}
	waiting *atomic.Int64
	queue   int64
}

var errBusy = errors.New("too many handshakes at one time")

func newBudget(workers, queue int) budget {
	return budget{slots: make(chan struct{}, workers), waiting: new(atomic.Int64), queue: int64(queue)}
}

// take waits for a slot. Who has one gives it back.
func (b *budget) take(ctx context.Context) error {
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	if b.waiting.Add(1) > b.queue {
		b.waiting.Add(-1)
		return errBusy
	}
	defer b.waiting.Add(-1)
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *budget) give() { <-b.slots }
