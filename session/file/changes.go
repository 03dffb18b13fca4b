package file

import (
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/owtp-go/owtp/session"
)

const (
	// Each write adds one record at most and takes up to four expired ones
	// away, so that the file is bounded without any sweeper.
	collectOnWrite = 4

	// collectOnFull is how many a write that found no room takes away before
	// it gives up.
	collectOnFull = 256
)

// changes are one transaction of the writer.
type changes struct {
	o       *Options
	records *bbolt.Bucket
	expiry  *bbolt.Bucket
	state   *bbolt.Bucket
	totals  totals
	now     int64
	wall    int64
	changed bool
}

func (s *Store) changes(tx *bbolt.Tx) (*changes, error) {
	c := &changes{
		o: &s.o, records: tx.Bucket(recordsBucket), expiry: tx.Bucket(expiryBucket), state: tx.Bucket(stateBucket),
		now: s.clock.now(), wall: s.clock.wall(),
	}
	if c.records == nil || c.expiry == nil || c.state == nil {
		return nil, fmt.Errorf("%w: a bucket is gone", ErrCorrupt)
	}
	c.expiry.FillPercent = 0.9 // it grows at its end
	var err error
	c.totals, err = parseTotals(c.state.Get(totalsKey))
	return c, err
}

func (c *changes) finish() error {
	c.totals.reached = c.now
	c.totals.wall = c.wall
	c.totals.wallHigh = max(c.totals.wallHigh, c.wall)
	return c.state.Put(totalsKey, c.totals.encode())
}

// find returns the living record under a key. One that has expired is removed,
// so that the time at which it counted as absent is written.
func (c *changes) find(key string) (e entry, found bool, err error) {
	b := c.records.Get([]byte(key))
	if b == nil {
		return entry{}, false, nil
	}
	if e, err = parseEntry(b); err != nil {
		return entry{}, false, err
	}
	if e.expired(c.now) {
		return entry{}, false, c.remove([]byte(key), e)
	}
	return e, true, nil
}

// store puts a record under a key, in place of old if found says so.
func (c *changes) store(key string, record []byte, ttl time.Duration, old entry, found bool) (version uint64, err error) {
	entries, bytes := int64(1), size(key, record[recordHead:])
	if found {
		entries, bytes = 0, bytes-size(key, old.value)
	}
	if !c.room(key, entries, bytes) {
		// What has expired makes room before anything is refused.
		if _, err := c.sweep(collectOnFull); err != nil {
			return 0, err
		}
		if !c.room(key, entries, bytes) {
			return 0, session.ErrFull
		}
	}
	if version, err = c.records.NextSequence(); err != nil {
		return 0, err
	}
	if err := c.schedule(key, record, version, old, ttl); err != nil {
		return 0, err
	}
	c.count(key, entries, bytes)
	return version, nil
}

// schedule writes a record with its version and the time when it expires.
func (c *changes) schedule(key string, record []byte, version uint64, old entry, ttl time.Duration) error {
	c.changed = true
	expires := expiry(c.now, ttl)
	if old.expires != expires {
		if old.expires != never {
			if err := c.expiry.Delete(expiryKey(old.expires, []byte(key))); err != nil {
				return err
			}
		}
		if expires != never {
			if err := c.expiry.Put(expiryKey(expires, []byte(key)), nil); err != nil {
				return err
			}
		}
	}
	setHead(record, version, expires)
	return c.records.Put([]byte(key), record)
}

func (c *changes) remove(key []byte, e entry) error {
	c.changed = true
	// Before the page it lies in may move.
	bytes := size(string(key), e.value)
	if e.expires != never {
		if err := c.expiry.Delete(expiryKey(e.expires, key)); err != nil {
			return err
		}
	}
	if err := c.records.Delete(key); err != nil {
		return err
	}
	c.count(string(key), -1, -bytes)
	return nil
}

// sweep removes up to max records that have expired.
func (c *changes) sweep(max int) (removed int, err error) {
	var keys [][]byte
	cursor := c.expiry.Cursor()
	for k, _ := cursor.First(); k != nil && len(keys) < max; k, _ = cursor.Next() {
		if len(k) <= 8 {
			return 0, fmt.Errorf("%w: an expiry has %d bytes", ErrCorrupt, len(k))
		}
		if expiresAt(k) > c.now {
			break
		}
		keys = append(keys, append([]byte(nil), k...)) // k lies in a page that is about to change
	}
	for _, k := range keys {
		key := k[8:]
		b := c.records.Get(key)
		if b == nil {
			return removed, fmt.Errorf("%w: an expiry without its record", ErrCorrupt)
		}
		e, err := parseEntry(b)
		if err != nil {
			return removed, err
		}
		if e.expires != expiresAt(k) {
			return removed, fmt.Errorf("%w: a record expires at two times", ErrCorrupt)
		}
		if err := c.remove(key, e); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

func (c *changes) room(key string, entries, bytes int64) bool {
	fits := func(have, more, most int64) bool { return more <= 0 || have+more <= most }
	if strings.HasPrefix(key, session.UserPrefix) &&
		!(fits(c.totals.sessions, entries, int64(c.o.MaxSessions)) && fits(c.totals.sessionBytes, bytes, c.o.MaxBytes-c.o.MaxBytes/4)) {
		return false
	}
	return fits(c.totals.entries, entries, int64(c.o.MaxEntries)) && fits(c.totals.bytes, bytes, c.o.MaxBytes)
}

func (c *changes) count(key string, entries, bytes int64) {
	c.totals.entries += entries
	c.totals.bytes += bytes
	if strings.HasPrefix(key, session.UserPrefix) {
		c.totals.sessions += entries
		c.totals.sessionBytes += bytes
	}
}

func size(key string, value []byte) int64 {
	return int64(2*len(key) + len(value) + entryOverhead)
}
