package memcache

import (
	"context"
	"errors"
	"fmt"
	"time"

	driver "github.com/bradfitz/gomemcache/memcache"

	"github.com/owtp-go/owtp/session"
)

// Get implements [session.Provider].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	if err := s.check(ctx, key, nil, 0); err != nil {
		return session.Record{}, err
	}
	var i item
	err := s.do(ctx, func(c *slot) (err error) {
		i, err = c.get(key)
		return err
	})
	if err != nil {
		return session.Record{}, err
	}
	return session.Record{Value: i.value, Version: i.version, TTL: i.left(time.Now())}, nil
}

// get reads an item. A connection that was kept may have been closed by a server
// that has restarted since: reading is tried once more on a new one.
func (c *slot) get(key string) (item, error) {
	it, err := c.client.Get(c.s.name(key))
	if err != nil && !settled(err) {
		c.client.Close()
		it, err = c.client.Get(c.s.name(key))
	}
	if errors.Is(err, driver.ErrCacheMiss) {
		return item{}, session.ErrNotFound
	}
	if err != nil {
		return item{}, err
	}
	return decode(key, it)
}

// Put implements [session.Provider].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.check(ctx, key, value, ttl); err != nil {
		return err
	}
	it := s.encode(key, newVersion(), value, ttl, time.Now())
	return s.do(ctx, func(c *slot) error { return c.client.Set(it) })
}

// PutIfAbsent implements [session.Provider].
func (s *Store) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if err := s.check(ctx, key, value, ttl); err != nil {
		return 0, err
	}
	version := newVersion()
	it := s.encode(key, version, value, ttl, time.Now())
	return changed(version, s.do(ctx, func(c *slot) error { return c.client.Add(it) }))
}

// CompareAndSwap implements [session.Provider].
func (s *Store) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	if err := s.check(ctx, key, value, ttl); err != nil {
		return 0, err
	}
	next := newVersion()
	return changed(next, s.swap(ctx, key, version, func(item) *driver.Item {
		return s.encode(key, next, value, ttl, time.Now())
	}))
}

// Touch implements [session.Provider]. It writes the item anew: the server's own
// touch would extend whatever is there.
func (s *Store) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	if err := s.check(ctx, key, nil, ttl); err != nil {
		return false, err
	}
	same, err := changed(version, s.swap(ctx, key, version, func(i item) *driver.Item {
		return s.encode(key, version, i.value, ttl, time.Now())
	}))
	return same != 0, err
}

// swap reads an item and writes what next makes of it, if it has the version and
// nobody has changed it in between. Both go over the same connection, so that a
// server that has restarted in between, and counts anew, is not asked.
func (s *Store) swap(ctx context.Context, key string, version uint64, next func(item) *driver.Item) error {
	return s.do(ctx, func(c *slot) error {
		i, err := c.get(key)
		if err != nil {
			return err
		}
		if i.version != version {
			return driver.ErrCASConflict
		}
		it := next(i)
		it.CasID = i.cas
		return c.client.CompareAndSwap(it)
	})
}

// Delete implements [session.Provider].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key, nil, 0); err != nil {
		return err
	}
	_, err := changed(1, s.do(ctx, func(c *slot) error { return c.client.Delete(s.name(key)) }))
	return err
}

// changed turns the answers that mean "not this one" into version 0.
func changed(version uint64, err error) (uint64, error) {
	switch {
	case err == nil:
		return version, nil
	case errors.Is(err, driver.ErrNotStored), errors.Is(err, driver.ErrCASConflict), errors.Is(err, driver.ErrCacheMiss), errors.Is(err, session.ErrNotFound):
		return 0, nil
	default:
		return 0, err
	}
}

func (s *Store) check(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := session.CheckRecord(key, value, ttl, s.o.MaxValue); err != nil {
		return fmt.Errorf("memcache: %w", err)
	}
	return nil
}
