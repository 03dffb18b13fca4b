package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/session"
)

// A Store is a [session.Provider] in a Redis. All methods are safe for
// concurrent use.
type Store struct {
	options Options
	client  redis.UniversalClient
	owned   bool // the client is closed with the store
	traits  session.Traits
	guard   guard
	closed  atomic.Bool
}

var _ session.Provider = (*Store)(nil)

// open learns what the server promises, and that it lets us do what we must.
func (s *Store) open(ctx context.Context) error {
	if err := checkClient(s.client, s.options); err != nil {
		return err
	}
	found, err := s.learn(ctx)
	if err != nil {
		return s.failed(ctx, "asking the server what it promises", err)
	}
	s.traits = session.Traits{
		Name: "redis", Shared: true, Lists: true,
		Durable: found.durable, MayEvict: found.evicts != "", Evicts: found.evicts,
	}
	s.guard.start(!s.traits.MayEvict)
	if _, err := s.Get(ctx, "probe"); err != nil && !errors.Is(err, session.ErrNotFound) {
		return err
	}
	return nil
}

// Traits implements [session.Provider]. MayEvict and Durable are what the server
// said when the store was opened; of a cluster, what the weakest one said.
func (s *Store) Traits() session.Traits { return s.traits }

// ready is asked first by each method.
func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return session.ErrClosed
	}
	return s.guard.check(ctx, s)
}

// Sweep implements [session.Provider]. The server removes what has expired by
// itself.
func (s *Store) Sweep(ctx context.Context, _ int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.closed.Load() {
		return 0, session.ErrClosed
	}
	return 0, nil
}

// Close implements [session.Provider]. A client that was given to [New] stays
// open.
func (s *Store) Close() error {
	if s.closed.Swap(true) || !s.owned {
		return nil
	}
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("redis: closing the client: %w", err)
	}
	return nil
}

// nodes calls f for each server that keeps records, one after the other: the
// one there is, or all masters of a cluster.
func (s *Store) nodes(ctx context.Context, f func(ctx context.Context, node *redis.Client) error) error {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return f(ctx, s.client.(*redis.Client))
	}
	turn := make(chan struct{}, 1)
	return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		return f(ctx, node)
	})
}
