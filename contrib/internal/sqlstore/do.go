package sqlstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Waits after the first and before the last attempts of a statement that others
// were in the way of. Who waited is behind those who did not: it is short.
const (
	shortestPause = time.Millisecond
	longestPause  = 64 * time.Millisecond
)

// do runs a method's statements. Where the server says that it has undone a
// statement because of others (a deadlock), nothing has been written, and the
// statement is run again until the context ends. Nothing else is: after a lost
// connection nobody knows.
func do[T any](ctx context.Context, s *Store, method string, f func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := s.ended(ctx); err != nil {
		return none, err
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		got, err := f(ctx)
		switch {
		case err == nil:
			return got, nil
		case named(err):
			return none, err
		case s.table.RolledBack(err) && sleep(ctx, time.Duration(rand.Int64N(int64(pause)))):
			continue
		}
		return none, s.failed(ctx, method, err)
	}
}

// Bounded gives a context that has no deadline one.
func Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, patience)
}

// failed says what could not be done. An error that came because the context or
// the store has ended is that one's too.
func (s *Store) failed(ctx context.Context, method string, err error) error {
	if ended := s.ended(ctx); ended != nil {
		return fmt.Errorf("%s: %s: %w (%w)", s.traits.Name, method, ended, err)
	}
	return fmt.Errorf("%s: %s: %w", s.traits.Name, method, s.table.Explain(ctx, err))
}

// sleep reports whether the context has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
