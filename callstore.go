package owtp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
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
	secret [16]byte  // nobody outside can look for two calls with one place
	shards [16]callShard
}

// A callShard has no pointer in what is kept of each call: there may be millions,
// and the garbage collector would follow them each time. What few calls have is
// kept beside.
type callShard struct {
	mu       sync.Mutex
	records  map[callPlace]ownCall
	attempts map[callPlace][]wire.Nonce // of records with another number of them than one
	replies  map[callPlace][]byte
	ends     map[time.Duration][]callPlace // by the step in which the record may end
	version  uint64
	most     int // of records since the map was made
}

// A callPlace is where a key's record is: a part of its hash that is long enough
// for no two to meet.
type callPlace [16]byte

// An ownCall ends so long after the store was born.
type ownCall struct {
	end     time.Duration
	version uint64
	lease   uint64
	owner   wire.Nonce
	digest  wire.Digest
	attempt wire.Nonce // if it is the only one
	state   uint8
	single  bool
	replied bool
}

func newOwnCalls() *ownCalls {
	c := &ownCalls{born: time.Now()}
	rand.Read(c.secret[:])
	for i := range c.shards {
		c.shards[i] = callShard{
			records: make(map[callPlace]ownCall), attempts: make(map[callPlace][]wire.Nonce),
			replies: make(map[callPlace][]byte), ends: make(map[time.Duration][]callPlace),
		}
	}
	return c
}

func (c *ownCalls) place(key string) (*callShard, callPlace) {
	var room [160]byte
	sum := sha256.Sum256(append(append(room[:0], c.secret[:]...), key...))
	place := callPlace(sum[:])
	return &c.shards[int(sum[len(place)])%len(c.shards)], place
}

func (c *ownCalls) key(peerID string, p *wire.Packet) string {
	k := p.Key()
	return peerID + "/" + string(k[:]) // no peer's ID has a slash
}

func (c *ownCalls) insert(ctx context.Context, key string, rec *wire.CallRecord, ttl time.Duration) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, notWritten{err}
	}
	s, place := c.place(key)
	now := time.Since(c.born)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.records[place]
	if ok && now < old.end {
		return 0, nil
	}
	return s.put(place, old, rec, now+ttl), nil
}

func (c *ownCalls) swap(ctx context.Context, key string, version uint64, rec *wire.CallRecord, ttl time.Duration) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, notWritten{err}
	}
	s, place := c.place(key)
	now := time.Since(c.born)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.records[place]
	if !ok || old.version != version || now >= old.end {
		return 0, nil
	}
	return s.put(place, old, rec, now+ttl), nil
}

// put keeps a record in the place of the old one, which is zero if there is none,
// with the lock held.
func (s *callShard) put(place callPlace, old ownCall, rec *wire.CallRecord, end time.Duration) uint64 {
	s.version++
	fresh := ownCall{
		end: end, version: s.version, lease: rec.Lease, owner: rec.Owner, digest: rec.Digest,
		state: uint8(rec.State), single: len(rec.Attempts) == 1, replied: rec.Reply != nil,
	}
	if fresh.single {
		fresh.attempt = rec.Attempts[0]
	}
	s.forgetRest(place, old)
	if !fresh.single {
		s.attempts[place] = slices.Clone(rec.Attempts)
	}
	if fresh.replied {
		s.replies[place] = rec.Reply
	}
	s.records[place] = fresh
	s.most = max(s.most, len(s.records))
	if step := end / shareStep; old.version == 0 || old.end/shareStep != step {
		s.ends[step] = append(s.ends[step], place)
	}
	return s.version
}

// forgetRest forgets what is kept beside a record.
func (s *callShard) forgetRest(place callPlace, old ownCall) {
	if old.version != 0 && !old.single {
		delete(s.attempts, place)
	}
	if old.replied {
		delete(s.replies, place)
	}
}

func (c *ownCalls) get(ctx context.Context, key string) (storedCall, error) {
	if err := ctx.Err(); err != nil {
		return storedCall{}, err
	}
	s, place := c.place(key)
	now := time.Since(c.born)
	s.mu.Lock()
	defer s.mu.Unlock()
	got, ok := s.records[place]
	if !ok || now >= got.end {
		return storedCall{}, fmt.Errorf("the record of a call: %w", session.ErrNotFound)
	}
	rec := wire.CallRecord{State: wire.CallState(got.state), Owner: got.owner, Lease: got.lease, Digest: got.digest, Reply: s.replies[place]}
	if got.single {
		rec.Attempts = []wire.Nonce{got.attempt}
	} else {
		rec.Attempts = slices.Clone(s.attempts[place]) // the caller appends to them
	}
	return storedCall{rec, got.version, got.end - now}, nil
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
	for step, places := range s.ends {
		if step >= now/shareStep {
			continue
		}
		for _, place := range places {
			if old := s.records[place]; now >= old.end { // a later step has those that were made longer
				s.forgetRest(place, old)
				delete(s.records, place)
			}
		}
		delete(s.ends, step)
	}
	if len(s.records) < s.most/4 { // a map keeps the room that it once needed
		records := make(map[callPlace]ownCall, len(s.records))
		maps.Copy(records, s.records)
		s.records, s.most = records, len(records)
	}
}
