package file

import (
	"bytes"
	"context"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/owtp-go/owtp/session"
)

// view runs f in a transaction that sees one state of the store.
func (s *Store) view(f func(tx *bbolt.Tx) error) error {
	return s.guarded(func() error { return s.db.View(f) })
}

// Get implements [session.Provider].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	if err := s.ready(ctx); err != nil {
		return session.Record{}, err
	}
	if err := session.CheckKey(key); err != nil {
		return session.Record{}, err
	}
	var r session.Record
	found, expires := false, int64(never)
	err := s.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(recordsBucket).Get([]byte(key))
		if b == nil {
			return nil
		}
		e, err := parseEntry(b)
		if err != nil {
			return err
		}
		now := s.clock.now()
		if e.expired(now) {
			expires = e.expires
			return nil
		}
		found = true
		r = session.Record{Value: slices.Clone(e.value), Version: e.version}
		if e.expires != never {
			r.TTL = time.Duration(e.expires - now)
		}
		return nil
	})
	if err != nil {
		return session.Record{}, s.closed(err)
	}
	if found {
		return r, nil
	}
	if err := s.witness(ctx, expires); err != nil {
		return session.Record{}, err
	}
	return session.Record{}, session.ErrNotFound
}

// witness makes sure that the store's time t is on the disk before somebody is
// told that a record has expired at t: a crash and a clock that is set back
// would make it alive again. It waits for the disk once for each time that
// nothing was written since.
func (s *Store) witness(ctx context.Context, t int64) error {
	if t <= s.reached.Load() {
		return nil
	}
	return s.submit(ctx, 0, func(c *changes) error { c.changed = true; return nil })
}

// List implements [session.Provider]. It looks at the keys of the page only, and
// at those that have expired in between.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (keys []string, err error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if err := session.CheckLimit(limit); err != nil {
		return nil, err
	}
	latest := int64(never)
	err = s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(recordsBucket).Cursor()
		now := s.clock.now()
		k, b := cursor.Seek([]byte(max(prefix, after)))
		for n := 0; k != nil && len(keys) < limit && bytes.HasPrefix(k, []byte(prefix)); k, b = cursor.Next() {
			if n++; n%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if string(k) <= after {
				continue
			}
			e, err := parseEntry(b)
			if err != nil {
				return err
			}
			if e.expired(now) {
				latest = max(latest, e.expires)
				continue
			}
			keys = append(keys, string(k))
		}
		return nil
	})
	if err == nil {
		err = s.witness(ctx, latest)
	}
	if err != nil {
		return nil, s.closed(err)
	}
	return keys, nil
}
