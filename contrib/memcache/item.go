package memcache

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	driver "github.com/bradfitz/gomemcache/memcache"

	"github.com/owtp-go/owtp/session"
)

// An item is a record as it lies in a server: one octet of format, version (8
// octets), time to live (8) and end (8) in nanoseconds and Unix nanoseconds of
// the writer's clock, length of the key (2), the key, the value. Numbers are
// big-endian.
//
// Its name is a hash of the key, since names have up to 250 octets without
// spaces and control characters; the whole key stands in the item.
const (
	itemFormat = 1
	itemHead   = 1 + 8 + 8 + 8 + 2
)

type item struct {
	version uint64
	ttl     time.Duration // 0: it never expires
	end     time.Time
	value   []byte
	cas     uint64 // the server's number of this value
}

func (s *Store) name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return s.o.Prefix + base64.RawURLEncoding.EncodeToString(sum[:])
}

// newVersion returns 64 random bits: the server's own numbers begin again when
// it restarts.
func newVersion() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return max(binary.BigEndian.Uint64(b[:]), 1)
}

// encode makes what the driver stores.
func (s *Store) encode(key string, version uint64, value []byte, ttl time.Duration, now time.Time) *driver.Item {
	b := make([]byte, 0, itemHead+len(key)+len(value))
	b = append(b, itemFormat)
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(ttl))
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixNano())+uint64(ttl))
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	b = append(append(b, key...), value...)
	return &driver.Item{Key: s.name(key), Value: b, Expiration: expiration(now, ttl)}
}

func decode(key string, it *driver.Item) (item, error) {
	b := it.Value
	if len(b) < itemHead || b[0] != itemFormat {
		return item{}, fmt.Errorf("%w: no item of this package", session.ErrCorrupt)
	}
	i := item{
		version: binary.BigEndian.Uint64(b[1:]),
		ttl:     time.Duration(binary.BigEndian.Uint64(b[9:])),
		end:     time.Unix(0, int64(binary.BigEndian.Uint64(b[17:]))),
		cas:     it.CasID,
	}
	n := int(binary.BigEndian.Uint16(b[25:]))
	if i.version == 0 || i.ttl < 0 || len(b) < itemHead+n || string(b[itemHead:itemHead+n]) != key {
		return item{}, fmt.Errorf("%w: the item is another key's", session.ErrCorrupt)
	}
	i.value = b[itemHead+n:]
	return i, nil
}

// left is what is left of the time to live as far as this process's clock knows:
// the server has just said that the item is there, and it is not there for
// longer than it was to be.
func (i item) left(now time.Time) time.Duration {
	if i.ttl == 0 {
		return 0
	}
	return min(max(i.end.Sub(now), time.Millisecond), i.ttl)
}

const month = 30 * 24 * 3600 // seconds; the server takes more for a point in time

// expiration is a time to live as a server takes it. Its clock ticks once a
// second, and the second under way may be nearly over: n seconds are n-1 at least.
func expiration(now time.Time, ttl time.Duration) int32 {
	if ttl == 0 {
		return 0
	}
	seconds := int64((ttl-1)/time.Second) + 2
	if seconds <= month {
		return int32(seconds)
	}
	at := now.Unix() + seconds
	switch {
	case at <= math.MaxInt32:
		return int32(at)
	case now.Unix()+month < math.MaxInt32:
		return math.MaxInt32 // the driver's last second, in 2038
	default:
		return month
	}
}
