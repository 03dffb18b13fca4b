package file

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// The file has three buckets. A release that changes what is in them takes the
// next format number and reads this one on.
//
//	records: key -> version (8 octets), expiry (8), value
//	expiry:  expiry (8), key -> nothing; of those that expire, in order of time
//	state:   "format" -> its text; "totals" -> seven numbers of 8 octets
//
// Numbers are big-endian; an expiry is on the store's clock, and 0 is never.
// Versions come from the sequence of records, which bbolt keeps.
var (
	recordsBucket = []byte("records")
	expiryBucket  = []byte("expiry")
	stateBucket   = []byte("state")
	formatKey     = []byte("format")
	totalsKey     = []byte("totals")
)

const (
	formatText = "owtp session store 1"
	formatName = "owtp session store "
	recordHead = 16
	totalsLen  = 7 * 8
	never      = 0
)

// An entry is one record as it lies in the file. Its value is the memory map's:
// nobody may keep it or change it after the transaction.
type entry struct {
	version uint64
	expires int64
	value   []byte
}

func parseEntry(b []byte) (entry, error) {
	if len(b) < recordHead {
		return entry{}, fmt.Errorf("%w: a record has %d bytes", ErrCorrupt, len(b))
	}
	e := entry{version: binary.BigEndian.Uint64(b), expires: int64(binary.BigEndian.Uint64(b[8:])), value: b[recordHead:]}
	if e.version == 0 || e.expires < 0 {
		return entry{}, fmt.Errorf("%w: a record has version %d and expires at %d", ErrCorrupt, e.version, e.expires)
	}
	return e, nil
}

func (e entry) expired(now int64) bool { return e.expires != never && now >= e.expires }

// newRecord returns a record with room for its head, and a copy of the value.
func newRecord(value []byte) []byte {
	return append(make([]byte, recordHead, recordHead+len(value)), value...)
}

func setHead(record []byte, version uint64, expires int64) {
	binary.BigEndian.PutUint64(record, version)
	binary.BigEndian.PutUint64(record[8:], uint64(expires))
}

func expiryKey(expires int64, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(key)), uint64(expires)), key...)
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

// totals are what the file says of itself as a whole.
type totals struct {
	entries, bytes         int64
	sessions, sessionBytes int64 // of these, under session.UserPrefix
	reached                int64 // the store's time at the last change
	wall, wallHigh         int64 // the wall clock at the last change, and its highest ever; Unix nanoseconds
}

func (t *totals) fields() []*int64 {
	return []*int64{&t.entries, &t.bytes, &t.sessions, &t.sessionBytes, &t.reached, &t.wall, &t.wallHigh}
}

func (t *totals) encode() []byte {
	b := make([]byte, 0, totalsLen)
	for _, f := range t.fields() {
		b = binary.BigEndian.AppendUint64(b, uint64(*f))
	}
	return b
}

func parseTotals(b []byte) (t totals, err error) {
	if len(b) != totalsLen {
		return t, fmt.Errorf("%w: its totals have %d bytes", ErrCorrupt, len(b))
	}
	for i, f := range t.fields() {
		*f = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	if t.entries < 0 || t.bytes < 0 || t.sessions < 0 || t.sessionBytes < 0 || t.reached < 0 {
		return t, fmt.Errorf("%w: a total is negative", ErrCorrupt)
	}
	return t, nil
}
