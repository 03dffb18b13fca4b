// Package memory keeps sessions and a node's state in this process: sharded,
// bounded, and lost with the process. It never evicts: when it is full, new
// records are refused and those that it has promised to keep stay.
//
// The package does not register itself: the root package does, under the name
// "memory", and other programs call New, or session.RegisterOnce with Open.
package memory

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp/session"
)

// 64 shards: as many writers as a machine is likely to run at once.
const shardCount = 64

// sweepOnFull is how many expired records a writer that found no room removes
// before it gives up; there may be more, and each refusal takes as many again.
const sweepOnFull = 256

// A Store is a [session.Provider] in memory. All methods are safe for concurrent
// use. The value of a record that Get returns is shared: nobody may change it.
type Store struct {
	seed   maphash.Seed
	clock  clock
	closed atomic.Bool
	cursor atomic.Uint32 // where the next sweep begins
	total  account
	users  account
	shards [shardCount]shard
}

var _ session.Provider = (*Store)(nil)

// New returns an empty store. A bound that is negative or contradicts another is
// an error.
func New(o Options) (*Store, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	s := &Store{seed: maphash.MakeSeed()}
	s.clock.start(o.Now)
	s.total.maxEntries, s.total.maxBytes = int64(o.MaxEntries), o.MaxBytes
	s.users.maxEntries, s.users.maxBytes = int64(o.MaxSessions), o.MaxBytes-o.MaxBytes/4
	for i := range s.shards {
		s.shards[i].entries = make(map[string]*entry)
	}
	return s, nil
}

// Traits implements [session.Provider].
func (s *Store) Traits() session.Traits {
	return session.Traits{Name: "memory", Lists: true, MaxValue: session.MaxValueLen}
}

// Len returns the number of records, expired ones that were not removed yet
// included.
func (s *Store) Len() int { return int(s.total.entries.Load()) }

func (s *Store) shard(key string) *shard {
	return &s.shards[maphash.String(s.seed, key)%shardCount]
}

func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return session.ErrClosed
	}
	return nil
}

// Get implements [session.Provider].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	if err := s.ready(ctx); err != nil {
		return session.Record{}, err
	}
	if err := session.CheckKey(key); err != nil {
		return session.Record{}, err
	}
	sh := s.shard(key)
	sh.mu.RLock()
	e := sh.entries[key]
	if e == nil {
		sh.mu.RUnlock()
		return session.Record{}, session.ErrNotFound
	}
	r := session.Record{Value: e.value, Version: e.version}
	expires := e.expires
	// The clock is read under the lock: whoever finds the record expired is
	// then before or after every other method in time as well as in order.
	now := s.clock.now()
	sh.mu.RUnlock()
	if expires == never {
		return r, nil
	}
	if now >= expires {
		return session.Record{}, session.ErrNotFound
	}
	r.TTL = time.Duration(expires - now)
	return r, nil
}

// Put implements [session.Provider].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := s.write(ctx, key, value, ttl, func(*entry) bool { return true })
	return err
}

// PutIfAbsent implements [session.Provider].
func (s *Store) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	return s.write(ctx, key, value, ttl, func(e *entry) bool { return e == nil })
}

// CompareAndSwap implements [session.Provider].
func (s *Store) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	return s.write(ctx, key, value, ttl, func(e *entry) bool { return e != nil && e.version == version })
}

// write stores value if allowed says so of the living entry, which may be nil.
func (s *Store) write(ctx context.Context, key string, value []byte, ttl time.Duration, allowed func(*entry) bool) (uint64, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	if err := session.CheckRecord(key, value, ttl, 0); err != nil {
		return 0, err
	}
	sh := s.shard(key)
	version, full := s.writeTo(sh, key, value, ttl, allowed)
	if full {
		// Other shards may hold what has expired.
		if n, _ := s.Sweep(ctx, sweepOnFull); n > 0 {
			version, full = s.writeTo(sh, key, value, ttl, allowed)
		}
	}
	if full {
		return 0, session.ErrFull
	}
	return version, nil
}

func (s *Store) writeTo(sh *shard, key string, value []byte, ttl time.Duration, allowed func(*entry) bool) (version uint64, full bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.clock.now()
	s.collect(sh, now, collectOnWrite)
	e := sh.entries[key]
	if e != nil && e.expired(now) {
		s.remove(sh, e)
		e = nil
	}
	if !allowed(e) {
		return 0, false
	}
	if e == nil {
		if !s.reserve(key, 1, size(key, value)) {
			return 0, true
		}
		e = &entry{key: strings.Clone(key), place: noPlace}
		sh.entries[e.key] = e
	} else if !s.reserve(key, 0, int64(len(value)-len(e.value))) {
		return 0, true
	}
	sh.version++
	e.version = sh.version
	e.value = slices.Clone(value)
	sh.schedule(e, expiry(now, ttl))
	return e.version, false
}

// Touch implements [session.Provider].
func (s *Store) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	if err := session.CheckRecord(key, nil, ttl, 0); err != nil {
		return false, err
	}
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.clock.now()
	e := sh.entries[key]
	if e == nil || e.expired(now) || e.version != version {
		return false, nil
	}
	sh.schedule(e, expiry(now, ttl))
	return true, nil
}

// Delete implements [session.Provider].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := session.CheckKey(key); err != nil {
		return err
	}
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.entries[key]; e != nil {
		s.remove(sh, e)
	}
	return nil
}

// Sweep implements [session.Provider].
func (s *Store) Sweep(ctx context.Context, max int) (int, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	removed := 0
	begin := s.cursor.Add(1)
	for i := range uint32(shardCount) {
		sh := &s.shards[(begin+i)%shardCount]
		for removed < max {
			batch := min(max-removed, collectOnSweep)
			sh.mu.Lock()
			n := s.collect(sh, s.clock.now(), batch)
			sh.mu.Unlock()
			removed += n
			if n < batch {
				break
			}
			if err := ctx.Err(); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

// Close drops all records. Methods return [session.ErrClosed] afterwards.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.entries, sh.heap = make(map[string]*entry), nil
		sh.mu.Unlock()
	}
	return nil
}

func size(key string, value []byte) int64 {
	return int64(len(key) + len(value) + entryOverhead)
}

func expiry(now int64, ttl time.Duration) int64 {
	if ttl == 0 {
		return never
	}
	if int64(ttl) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(ttl)
}
