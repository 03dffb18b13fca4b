package sqlstore

import (
	"context"
	"math"
	"time"
)

// Never is the moment at which a record expires that never does.
const Never int64 = math.MaxInt64

// A Row is what a table keeps under one key. Moments are microseconds since
// 1970, by the server's clock.
type Row struct {
	Value   []byte
	Version uint64
	Expires int64
	Now     int64 // when the statement began that read it
}

// Gone says that the record has expired.
func (r *Row) Gone() bool { return r.Expires <= r.Now }

// TTL is what is left of a record that is not gone, 0 of one that never expires.
func (r *Row) TTL() time.Duration {
	if r.Expires == Never {
		return 0
	}
	left := r.Expires - r.Now
	if left > math.MaxInt64/int64(time.Microsecond) {
		return math.MaxInt64
	}
	return time.Duration(left) * time.Microsecond
}

// A Stamp names one state of a row: whoever writes it or gives it another ttl
// changes the stamp.
type Stamp struct {
	Key     string
	Version uint64
	Expires int64
}

// A Listed row is one of a [Table.Page].
type Listed struct {
	Stamp
	Now int64
}

// A Table does to one database's table what a [Store] asks for. Every method is
// one statement in a transaction of its own, and is safe for concurrent use; it
// never tries again what may have been done. micros is a time to live in
// microseconds, 0 for ever.
type Table interface {
	// Get returns the row whether it is gone or not, or session.ErrNotFound.
	Get(ctx context.Context, key string) (Row, error)

	// Put stores a row, whatever was there.
	Put(ctx context.Context, key string, value []byte, version uint64, micros int64) error

	// Insert stores a row where there is none or one that is gone.
	Insert(ctx context.Context, key string, value []byte, version uint64, micros int64) (bool, error)

	// Swap replaces the row of the version old. A row that it finds gone is
	// gone for ever afterwards, whatever becomes of the clock.
	Swap(ctx context.Context, key string, old uint64, value []byte, version uint64, micros int64) (bool, error)

	// Touch gives the row of this version a new time to live. A row that it
	// finds gone is gone for ever afterwards.
	Touch(ctx context.Context, key string, version uint64, micros int64) (bool, error)

	// Delete removes the row.
	Delete(ctx context.Context, key string) error

	// Page returns in ascending order up to limit rows, gone or not, with keys
	// that are not below from, above after, and below to unless that is "".
	Page(ctx context.Context, from, after, to string, limit int) ([]Listed, error)

	// Remove removes the rows that still are as the stamps say, and reports
	// how many. It may take several statements.
	Remove(ctx context.Context, rows []Stamp) (int, error)

	// Sweep removes up to max rows that are gone, of the oldest; more says that
	// there may be others.
	Sweep(ctx context.Context, max int) (removed int, more bool, err error)

	// RolledBack says that an error stands for a statement that the server has
	// undone because others were in its way.
	RolledBack(err error) bool

	// Explain returns an error that says more where there is more to say.
	Explain(ctx context.Context, err error) error

	// Close ends what the table's user has opened.
	Close()
}
