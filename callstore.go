package owtp

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/session"
)

// A callStore keeps the records of calls. Versions, and which errors leave open
// whether something was written, are those of session.Provider.
type callStore interface {
	// key is what the record of a call is kept under.
	key(peerID string, p *wire.Packet) string
	// insert keeps a record if there is none, and returns its version or 0.
	insert(ctx context.Context, key string, rec *wire.CallRecord, ttl time.Duration) (uint64, error)
	// swap replaces the record of that version, and returns the new one or 0.
	swap(ctx context.Context, key string, version uint64, rec *wire.CallRecord, ttl time.Duration) (uint64, error)
	// get returns a record of the caller's own.
	get(ctx context.Context, key string) (storedCall, error)
	sweep()
}

type storedCall struct {
	wire.CallRecord
	version uint64
	ttl     time.Duration // what is left of it
}

// sealedCalls keeps records in the node's store.
type sealedCalls struct{ state *state }

func (s sealedCalls) key(peerID string, p *wire.Packet) string {
	k := p.Key()
	return s.state.base + "call/" + session.EscapeKey(peerID) + "/" + hex.EncodeToString(k[:])
}

func (s sealedCalls) insert(ctx context.Context, key string, rec *wire.CallRecord, ttl time.Duration) (uint64, error) {
	return s.state.insert(ctx, purposeCall, key, rec.Append(nil), ttl)
}

func (s sealedCalls) swap(ctx context.Context, key string, version uint64, rec *wire.CallRecord, ttl time.Duration) (uint64, error) {
	return s.state.swap(ctx, purposeCall, key, version, rec.Append(nil), ttl)
}

func (s sealedCalls) get(ctx context.Context, key string) (storedCall, error) {
	got, err := s.state.get(ctx, purposeCall, key)
	if err != nil {
		return storedCall{}, err
	}
	rec, err := wire.ParseCallRecord(got.value)
	if err != nil {
		return storedCall{}, err
	}
	return storedCall{*rec, got.version, got.ttl}, nil
}

func (s sealedCalls) sweep() {}

// ownCalls keeps records in the process, where the program has given no store:
// as they are, since nobody else has a way to them. How many there are is for
// claims to bound. It is safe for concurrent use.
type ownCalls struct {
	born   time.Time // by the monotonic clock, whatever becomes of the wall clock
	seed   maphash.Seed
	shards [16]callShard
}

type callShard struct {
	mu      sync.Mutex
	records map[string]ownCall
	ends    map[time.Duration][]string // keys by the step in which the record may end
	version uint64
}

// An ownCall ends so long after the store was born.
type ownCall struct {
	storedCall
	end time.Duration
}

func newOwnCalls() *ownCalls {
	c := &ownCalls{born: time.Now(), seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].records = make(map[string]ownCall)
		c.shards[i].ends = make(map[time.Duration][]string)
	}
	return c
}

func (c *ownCalls) shard(key string) *callShard {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}

func (c *ownCalls) key(peerID string, p *wire.Packet) string {
	k := p.Key()
	return peerID + "/" + string(k[:]) // no peer's ID has a slash
}

func (c *ownCalls) insert(ctx context.Context, key string, rec *wire.CallRecord, ttl time.Duration) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, notWritten{err}
	}
	s := c.shard(key)
	now := time.Since(c.born)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.records[key]; ok && now < old.end {
		return 0, nil
	}
	return s.put(key, rec, now+ttl), nil
}

func (c *ownCalls) swap(ctx context.Context, key string, version uint64, rec *wire.CallRecord, ttl time.Duration) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, notWritten{err}
	}
	s := c.shard(key)
	now := time.Since(c.born)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.records[key]; !ok || old.version != version || now >= old.end {
		return 0, nil
	}
	return s.put(key, rec, now+ttl), nil
}

// put keeps a record, with the lock held.
func (s *callShard) put(key string, rec *wire.CallRecord, end time.Duration) uint64 {
	s.version++
	old, ok := s.records[key]
	s.records[key] = ownCall{storedCall{CallRecord: *rec, version: s.version}, end}
	if step := end / shareStep; !ok || old.end/shareStep != step {
		s.ends[step] = append(s.ends[step], key)
	}
	return s.version
}

func (c *ownCalls) get(ctx context.Context, key string) (storedCall, error) {
	if err := ctx.Err(); err != nil {
		return storedCall{}, err
	}
	s := c.shard(key)
	now := time.Since(c.born)
	s.mu.Lock()
	defer s.mu.Unlock()
	got, ok := s.records[key]
	if !ok || now >= got.end {
		return storedCall{}, fmt.Errorf("the record of a call: %w", session.ErrNotFound)
	}
	got.ttl = got.end - now
	got.Attempts = slices.Clone(got.Attempts) // the caller appends to them
	return got.storedCall, nil
}

// sweep forgets records whose time is over.
func (c *ownCalls) sweep() {
	for i := range c.shards {
		c.shards[i].sweep(time.Since(c.born))
	}
}

func (s *callShard) sweep(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for step, keys := range s.ends {
		if step >= now/shareStep {
			continue
		}
		for _, key := range keys {
			if now >= s.records[key].end { // a later step has those that were made longer
				delete(s.records, key)
			}
		}
		delete(s.ends, step)
	}
}
