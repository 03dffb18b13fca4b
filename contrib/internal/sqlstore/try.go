package sqlstore

import (
	"context"
	"fmt"
	"time"
)

// try runs every kind of statement on a key that nobody else uses.
func (s *Store) try(ctx context.Context) error {
	key := fmt.Sprintf("\x00owtp opening %016x", newVersion())
	const ttl = time.Minute
	first, err := s.PutIfAbsent(ctx, key, nil, ttl)
	if err != nil {
		return err
	}
	again, err := s.PutIfAbsent(ctx, key, nil, ttl)
	if err != nil {
		return err
	}
	second, err := s.CompareAndSwap(ctx, key, first, []byte{1}, ttl)
	if err != nil {
		return err
	}
	stale, err := s.CompareAndSwap(ctx, key, first, nil, ttl)
	if err != nil {
		return err
	}
	touched, err := s.Touch(ctx, key, second, ttl)
	if err != nil {
		return err
	}
	r, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, key, nil, ttl); err != nil {
		return err
	}
	keys, err := s.List(ctx, key, "", 2)
	if err != nil {
		return err
	}
	if err := s.Delete(ctx, key); err != nil {
		return err
	}
	if first == 0 || again != 0 || second == 0 || stale != 0 || !touched || r.Version != second || string(r.Value) != "\x01" || len(keys) != 1 {
		return fmt.Errorf("%s: the server does not do what its statements say: something between it and this program, or in its table, changes them", s.traits.Name)
	}
	return nil
}
