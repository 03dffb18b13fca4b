package file

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/owtp-go/owtp/session"
)

// sweepStep is how many records a sweep removes in one commit, so that other
// writers do not wait for long.
const sweepStep = 256

// Put implements [session.Provider].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := s.put(ctx, key, value, ttl, func(entry, bool) bool { return true })
	return err
}

// PutIfAbsent implements [session.Provider].
func (s *Store) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	return s.put(ctx, key, value, ttl, func(_ entry, found bool) bool { return !found })
}

// CompareAndSwap implements [session.Provider].
func (s *Store) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	return s.put(ctx, key, value, ttl, func(e entry, found bool) bool { return found && e.version == version })
}

// put stores value if allowed says so of what is there.
func (s *Store) put(ctx context.Context, key string, value []byte, ttl time.Duration, allowed func(e entry, found bool) bool) (uint64, error) {
	if err := s.check(ctx, key, value, ttl); err != nil {
		return 0, err
	}
	record := newRecord(value) // a caller that does not wait any more may use its own again
	version := uint64(0)
	err := s.submit(ctx, len(record), func(c *changes) error {
		version = 0
		old, found, err := c.find(key)
		if err != nil || !allowed(old, found) {
			return err
		}
		version, err = c.store(key, record, ttl, old, found)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// Touch implements [session.Provider].
func (s *Store) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	if err := s.check(ctx, key, nil, ttl); err != nil {
		return false, err
	}
	touched := false
	err := s.submit(ctx, 0, func(c *changes) error {
		touched = false
		e, found, err := c.find(key)
		if err != nil || !found || e.version != version {
			return err
		}
		touched = true
		return c.schedule(key, newRecord(e.value), version, e, ttl)
	})
	if err != nil {
		return false, err
	}
	return touched, nil
}

// Delete implements [session.Provider].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key, nil, 0); err != nil {
		return err
	}
	return s.submit(ctx, 0, func(c *changes) error {
		e, found, err := c.find(key)
		if err != nil || !found {
			return err
		}
		return c.remove([]byte(key), e)
	})
}

// Sweep implements [session.Provider].
func (s *Store) Sweep(ctx context.Context, max int) (int, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	removed := 0
	for removed < max {
		step := min(max-removed, sweepStep)
		n := 0
		err := s.submit(ctx, 0, func(c *changes) (err error) {
			n, err = c.sweep(step)
			return err
		})
		if err != nil {
			return removed, err
		}
		removed += n
		if n < step {
			break
		}
	}
	return removed, nil
}

func (s *Store) check(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return session.CheckRecord(key, value, ttl, 0)
}

// closed names the error of a read that met Close.
func (s *Store) closed(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return session.ErrClosed
	}
	return err
}

func expiresAt(expiryKey []byte) int64 { return int64(binary.BigEndian.Uint64(expiryKey)) }
