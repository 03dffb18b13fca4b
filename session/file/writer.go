package file

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/owtp-go/owtp/session"
)

const (
	// queueLen bounds the writes that wait. Further callers wait for room in
	// it, each as long as its context lasts.
	queueLen = 1024

	// A commit takes up to so many writes and bytes of values: enough to share
	// the disk's time among all that wait, and little enough for a caller not
	// to wait for long.
	commitWrites = 512
	commitBytes  = 8 << 20

	// fileReserve is what the file may grow beyond its limit to make room; it
	// grows by 16 MiB at a time.
	fileReserve = 64 << 20
)

// A write is a caller's change that waits to be committed.
type write struct {
	ctx  context.Context
	size int                    // of its value; 0 if it needs no more room than there is
	do   func(c *changes) error // nil, session.ErrFull, or an error that undoes the whole commit; may run twice
	err  error                  // what do returned; the writer's until done
	done chan error
}

// errUnchanged undoes a transaction in which there is nothing to write.
var errUnchanged = errors.New("file: nothing has changed")

// submit has the writer do it. What do sets may be read only if the result is nil.
func (s *Store) submit(ctx context.Context, size int, do func(c *changes) error) error {
	w := &write{ctx: ctx, size: size, do: do, done: make(chan error, 1)}
	select {
	case <-ctx.Done():
		return fmt.Errorf("file: a write has found no place among those that wait: %w", ctx.Err())
	case <-s.closing:
		return session.ErrClosed
	case <-s.failed:
		return s.failure
	case s.queue <- w:
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("file: a write has not come to its end, and may still: %w", ctx.Err())
	case <-s.failed:
		return s.failure
	case <-s.ended:
	}
	select {
	case err := <-w.done:
		return err
	default:
		return session.ErrClosed // it came when the writer had emptied the queue for good
	}
}

// run is the writer: one commit after the other, each with all that waits. It
// ends with the store.
func (s *Store) run() {
	defer close(s.ended)
	for {
		select {
		case <-s.closing:
			s.refuseAll()
			return
		case <-s.failed:
			return
		case w := <-s.queue:
			s.commit(s.gather(w))
		}
	}
}

// gather takes what waits behind the first write.
func (s *Store) gather(first *write) []*write {
	batch, size := []*write{first}, first.size
	for len(batch) < commitWrites && size < commitBytes {
		select {
		case w := <-s.queue:
			batch, size = append(batch, w), size+w.size
		default:
			return batch
		}
	}
	return batch
}

func (s *Store) refuseAll() {
	for {
		select {
		case w := <-s.queue:
			w.done <- session.ErrClosed
		default:
			return
		}
	}
}

// commit makes the changes of all in one transaction and tells them.
func (s *Store) commit(batch []*write) {
	err := s.update(batch)
	if errors.Is(err, bolterrors.ErrMaxSizeReached) {
		if len(batch) > 1 {
			// Some of them may have room, a Delete for one.
			for _, w := range batch {
				s.commit([]*write{w})
			}
			return
		}
		err = session.ErrFull
		if batch[0].size == 0 {
			err = s.updateInReserve(batch)
		}
	}
	if err != nil && !errors.Is(err, session.ErrFull) && !errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("file: %w", err)
	}
	for _, w := range batch {
		if w.err == nil {
			w.err = err
		}
		w.done <- w.err
	}
}

// updateInReserve lets a write beyond the file's limit that makes room: also to
// remove something, pages are written anew before the old ones are free.
func (s *Store) updateInReserve(batch []*write) error {
	limit := s.db.MaxSize // only the writer's transactions look at it
	s.db.MaxSize = limit + fileReserve
	defer func() { s.db.MaxSize = limit }()
	return s.update(batch)
}

// update returns nil if all results of the batch are true: what they rest on is
// on the disk.
func (s *Store) update(batch []*write) error {
	var reached int64
	err := s.guarded(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			c, err := s.changes(tx)
			if err != nil {
				return err
			}
			for _, w := range batch {
				if err := w.ctx.Err(); err != nil {
					w.err = fmt.Errorf("file: not written: %w", err)
					continue
				}
				if w.err = w.do(c); w.err != nil && !errors.Is(w.err, session.ErrFull) {
					return w.err
				}
			}
			if !c.changed {
				return errUnchanged
			}
			// What is written anyway takes others along.
			if _, err := c.sweep(collectOnWrite * len(batch)); err != nil {
				return err
			}
			reached = c.now
			return c.finish()
		})
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err == nil {
		s.reached.Store(reached)
	}
	return err
}
