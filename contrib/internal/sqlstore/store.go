// Package sqlstore is what the stores in SQL databases share: everything but
// the statements.
//
// An expired record is to stay away even if the server's clock is set back. So
// nobody is told that one is absent before it is so by more than the clock: Get
// and List remove the rows that they saw expired, Swap and Touch change them in
// the same statement, and Insert replaces them.
package sqlstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/session"
)

const (
	// patience bounds a method whose context has no deadline: a server that is
	// paused or out of reach keeps nobody for ever.
	patience = 30 * time.Second

	// sweepBatch is how many rows one statement removes: a few milliseconds
	// in which their locks are held, and who waits for one wants to replace an
	// expired record.
	sweepBatch = 256
)

// A Store is a [session.Provider] over a [Table].
type Store struct {
	table  Table
	traits session.Traits
	closed atomic.Bool
}

var _ session.Provider = (*Store)(nil)

// New returns a store after it has tried every kind of statement on a key of
// its own: an account without a right, a replica that only reads or a table of
// somebody else's is found out now and not in the middle of a request. It owns
// the table from then on, also after an error.
func New(ctx context.Context, table Table, traits session.Traits) (*Store, error) {
	s := &Store{table: table, traits: traits}
	if err := s.try(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Traits implements [session.Provider].
func (s *Store) Traits() session.Traits { return s.traits }

// Get implements [session.Provider].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	if err := session.CheckKey(key); err != nil {
		return session.Record{}, s.orEnded(ctx, err)
	}
	return do(ctx, s, "Get", func(ctx context.Context) (session.Record, error) {
		for {
			row, err := s.table.Get(ctx, key)
			if err != nil {
				return session.Record{}, err
			}
			if row.Version == 0 || len(row.Value) > session.MaxValueLen {
				return session.Record{}, fmt.Errorf("the row is damaged or of somebody else's: version %d, %d bytes", row.Version, len(row.Value))
			}
			if !row.Gone() {
				return session.Record{Value: row.Value, Version: row.Version, TTL: row.TTL()}, nil
			}
			// If somebody has written meanwhile, the row that was read is
			// history, and the next one counts.
			n, err := s.table.Remove(ctx, []Stamp{{key, row.Version, row.Expires}})
			if err != nil {
				return session.Record{}, err
			}
			if n > 0 {
				return session.Record{}, session.ErrNotFound
			}
		}
	})
}

// Put implements [session.Provider].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := session.CheckRecord(key, value, ttl, s.traits.MaxValue); err != nil {
		return s.orEnded(ctx, err)
	}
	_, err := do(ctx, s, "Put", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.table.Put(ctx, key, value, newVersion(), micros(ttl))
	})
	return err
}

// PutIfAbsent implements [session.Provider].
func (s *Store) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if err := session.CheckRecord(key, value, ttl, s.traits.MaxValue); err != nil {
		return 0, s.orEnded(ctx, err)
	}
	return do(ctx, s, "PutIfAbsent", func(ctx context.Context) (uint64, error) {
		version := newVersion()
		stored, err := s.table.Insert(ctx, key, value, version, micros(ttl))
		return only(version, stored), err
	})
}

// CompareAndSwap implements [session.Provider].
func (s *Store) CompareAndSwap(ctx context.Context, key string, old uint64, value []byte, ttl time.Duration) (uint64, error) {
	if err := session.CheckRecord(key, value, ttl, s.traits.MaxValue); err != nil {
		return 0, s.orEnded(ctx, err)
	}
	return do(ctx, s, "CompareAndSwap", func(ctx context.Context) (uint64, error) {
		version := newVersion()
		swapped, err := s.table.Swap(ctx, key, old, value, version, micros(ttl))
		return only(version, swapped), err
	})
}

// Touch implements [session.Provider].
func (s *Store) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	if err := session.CheckRecord(key, nil, ttl, 0); err != nil {
		return false, s.orEnded(ctx, err)
	}
	return do(ctx, s, "Touch", func(ctx context.Context) (bool, error) {
		return s.table.Touch(ctx, key, version, micros(ttl))
	})
}

// Delete implements [session.Provider].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := session.CheckKey(key); err != nil {
		return s.orEnded(ctx, err)
	}
	_, err := do(ctx, s, "Delete", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.table.Delete(ctx, key)
	})
	return err
}

// List implements [session.Provider].
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := session.CheckLimit(limit); err != nil {
		return nil, s.orEnded(ctx, err)
	}
	var keys []string
	for len(keys) < limit {
		page, err := do(ctx, s, "List", func(ctx context.Context) ([]Listed, error) {
			return s.table.Page(ctx, prefix, after, prefixEnd(prefix), limit-len(keys))
		})
		if err != nil {
			return nil, err
		}
		full := len(page) == limit-len(keys)
		var gone []Stamp
		for _, row := range page {
			if row.Expires <= row.Now {
				gone = append(gone, row.Stamp)
			} else {
				keys = append(keys, row.Key)
			}
			after = row.Key
		}
		if _, err := s.remove(ctx, "List", gone); err != nil {
			return nil, err
		}
		if !full {
			break
		}
	}
	return keys, nil
}

func (s *Store) remove(ctx context.Context, method string, rows []Stamp) (int, error) {
	if len(rows) == 0 {
		return 0, nil
	}
	return do(ctx, s, method, func(ctx context.Context) (int, error) { return s.table.Remove(ctx, rows) })
}

// Sweep implements [session.Provider].
func (s *Store) Sweep(ctx context.Context, max int) (int, error) {
	removed := 0
	for more := true; more && removed < max; {
		n, err := do(ctx, s, "Sweep", func(ctx context.Context) (n int, err error) {
			n, more, err = s.table.Sweep(ctx, min(max-removed, sweepBatch))
			return n, err
		})
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, s.ended(ctx)
}

// Close implements [session.Provider]. Methods that run go on until their
// contexts end: in PostgreSQL Close waits for them.
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.table.Close()
	}
	return nil
}

// orEnded returns what is wrong with the context or the store first, and then
// err, which is about the arguments.
func (s *Store) orEnded(ctx context.Context, err error) error {
	if ended := s.ended(ctx); ended != nil {
		return ended
	}
	return err
}

func (s *Store) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return session.ErrClosed
	}
	return nil
}

func only(version uint64, is bool) uint64 {
	if !is {
		return 0
	}
	return version
}

// newVersion draws 64 random bits that are not all zero.
func newVersion() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:])
		if v := binary.BigEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}

// micros rounds up, and adds one for the part of a microsecond that the server's
// clock does not show at the beginning.
func micros(ttl time.Duration) int64 {
	if ttl == 0 {
		return 0
	}
	return int64((ttl-1)/time.Microsecond) + 2
}

// prefixEnd returns the lowest key that is above all with the prefix, or "" if
// there is none.
func prefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < math.MaxUint8 {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

// named are the errors that methods return as they are.
func named(err error) bool {
	return errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrClosed)
}
