package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// MaxKeyLen is the longest key in bytes. InnoDB and PostgreSQL index at
	// most 3072 and 2704 bytes, so that 1 KiB fits every store with room for
	// the store's own prefix.
	MaxKeyLen = 1024

	// MaxValueLen is the longest value in bytes that any store takes: half of
	// the 16 MiB at which the usual SQL servers refuse a packet. A store may
	// take less, see [Traits.MaxValue].
	MaxValueLen = 8 << 20

	// MaxListLimit is the longest page of [Provider.List]: 10,000 keys of
	// 1 KiB are 10 MiB, which one answer may cost.
	MaxListLimit = 10_000
)

var (
	// ErrNotFound says that there is no such record, session or field, or that
	// it has expired.
	ErrNotFound = errors.New("session: not found")

	// ErrFull says that a bounded store has no room for another record. What
	// the store already keeps is not affected. A node answers 429.
	ErrFull = errors.New("session: store is full")

	// ErrKey says that a key is empty or longer than [MaxKeyLen].
	ErrKey = errors.New("session: bad key")

	// ErrTooLarge says that a value is longer than the store takes.
	ErrTooLarge = errors.New("session: value too large")

	// ErrTTL says that a time to live is negative.
	ErrTTL = errors.New("session: negative time to live")

	// ErrClosed is what every method returns after Close. It is a
	// [net.ErrClosed].
	ErrClosed = fmt.Errorf("session: store is closed: %w", net.ErrClosed)
)

// A Record is what a store keeps under one key.
type Record struct {
	// Value is what was stored, octet for octet; an empty value may come back
	// as nil. It may be shared with the store and with other readers: nobody
	// may change it.
	Value []byte

	// Version names this value of the key. It is never zero, every write of a
	// value draws a new one, and no version is used twice for one key as long
	// as the store keeps anything, also not after a Delete: a counter that
	// survives the record, or 64 random bits.
	Version uint64

	// TTL is what is left of the record's time to live, positive; 0 means
	// that it never expires.
	TTL time.Duration
}

// Traits say what a store promises. They do not change while it is open.
type Traits struct {
	// Name is the store's kind as an operator knows it ("memory", "redis");
	// it stands in error messages.
	Name string

	// Shared: other processes may open the same records.
	Shared bool

	// MayEvict: a record may disappear before its time (a cache that makes
	// room). Such a store takes user sessions only: a forgotten call record
	// would let a call run twice.
	MayEvict bool

	// Evicts says why MayEvict is true and what to change, where the store
	// knows; a node that refuses the store repeats it.
	Evicts string

	// Durable: what was stored outlives a crash of this process.
	Durable bool

	// Lists: List works. Where it is false, List returns an error that is
	// [errors.ErrUnsupported].
	Lists bool

	// MaxValue is the longest value in bytes; 0 means [MaxValueLen].
	MaxValue int

	// LastUsed is the latest that the wall clock has said when a durable store
	// of this process alone was written before it was opened this time; zero
	// for a new store, or if it does not know. A clock that is behind it was
	// set back while nobody watched: a node does not know then which packets
	// it has seen, and begins a new epoch. Shared stores leave it zero.
	LastUsed time.Time
}

// A Provider is a store of records: a map from keys to short values that
// expire. User sessions and a node's own state lie in one Provider under
// different prefixes.
//
// All methods are safe for concurrent use, here and, if the store is shared,
// from other processes, and each is atomic for its key. Keys are octets of any
// content, 1 to [MaxKeyLen] of them: a provider must not trust them to be text
// or to be free of what means something to its server. ([Manager] escapes what
// peers choose all the same.) Values have 0 to [Traits.MaxValue] octets and
// are copied before a method returns, so that the caller may reuse its slice.
// [CheckKey] and [CheckRecord] check these bounds.
//
// A ttl of 0 means that the record never expires; a negative one is [ErrTTL].
// A record lives for its ttl at least, and is gone two seconds later at most
// (stores count in seconds or milliseconds; they round up). An expired record
// counts as absent in every method, whether it was collected or not, and never
// comes back, whichever way a clock is set. Where several processes share the
// store, its server's clock decides and not theirs.
//
// A method whose context has already ended changes nothing and returns the
// context's error. Any error other than those that a method names means that
// the store could not answer, and after such an error of a writing method
// nobody knows whether it has written. A provider must not hide that by trying
// again: the second attempt of a PutIfAbsent would find its own first one and
// report somebody else's.
type Provider interface {
	// Get returns the record, or [ErrNotFound].
	Get(ctx context.Context, key string) (Record, error)

	// Put stores value, whatever was there before. [ErrFull] if there is no
	// room; then the old record stays.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// PutIfAbsent stores value if there is no record, and returns its version.
	// Version 0 means that there is one already, which stays as it is. Of any
	// number of concurrent callers one stores. [ErrFull] if there is no room.
	PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (version uint64, err error)

	// CompareAndSwap replaces the value and the ttl of the record that has the
	// given version, and returns the new version. Version 0 means that there
	// is no such record: it was changed, deleted or has expired. It never
	// creates one. [ErrFull] if a larger value has no room; then the old
	// record stays.
	CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (newVersion uint64, err error)

	// Touch gives the record that has the given version a new ttl, counted
	// from now, and keeps its value and version. It reports false if there is
	// no such record. The version keeps a slow caller from cutting short a
	// newer record.
	Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error)

	// Delete removes the record; an absent one is no error. The next record
	// under the key has a version of its own, so that a CompareAndSwap which
	// began before fails.
	Delete(ctx context.Context, key string) error

	// List returns, in ascending order of their octets, up to limit keys that
	// begin with prefix and are greater than after: the first page has after
	// = "", the next the last key of the one before; a page shorter than limit
	// is the last. limit is 1 to [MaxListLimit]. A key that lives all through
	// the paging comes exactly once; one that comes or goes meanwhile may be
	// there or not. A page may cost a pass over the whole store: it is for
	// people who look, not for a request's way.
	List(ctx context.Context, prefix, after string, limit int) (keys []string, err error)

	// Sweep removes up to max expired records and reports how many; fewer
	// than max means that no more were found. It never holds up other methods
	// for longer than a few of them take. A store that needs no sweeping
	// returns 0.
	Sweep(ctx context.Context, max int) (removed int, err error)

	// Traits returns what the store promises.
	Traits() Traits

	// Close releases what the provider holds and ends what runs in it. The
	// methods return [ErrClosed] afterwards, Close itself nil.
	Close() error
}

// CheckKey returns [ErrKey] for a key that no store may take.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrKey)
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrKey, len(key), MaxKeyLen)
	}
	return nil
}

// CheckRecord returns [ErrKey], [ErrTooLarge] or [ErrTTL] for what a store that
// takes values of up to maxValue bytes (0: [MaxValueLen]) may not take.
func CheckRecord(key string, value []byte, ttl time.Duration, maxValue int) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if maxValue <= 0 || maxValue > MaxValueLen {
		maxValue = MaxValueLen
	}
	if len(value) > maxValue {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(value), maxValue)
	}
	if ttl < 0 {
		return fmt.Errorf("%w: %v", ErrTTL, ttl)
	}
	return nil
}

// CheckLimit returns an error for a limit that [Provider.List] may not take.
func CheckLimit(limit int) error {
	if limit < 1 || limit > MaxListLimit {
		return fmt.Errorf("session: list limit %d is not within 1 and %d", limit, MaxListLimit)
	}
	return nil
}
