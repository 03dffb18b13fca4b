package redis

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/session"
)

// A record in the server is a string: the format, eight octets of version, and
// the value. The format and the version together are the header by which the
// scripts compare.
const (
	recordFormat = 1
	headerLen    = 1 + 8
)

// encode makes a record of a value, with a version that no other write draws.
func encode(value []byte) (record []byte, version uint64) {
	record = make([]byte, headerLen+len(value))
	record[0] = recordFormat
	for version == 0 {
		rand.Read(record[1:headerLen]) // never fails: the program ends where there is no randomness
		version = binary.BigEndian.Uint64(record[1:headerLen])
	}
	copy(record[headerLen:], value)
	return record, version
}

// header is what a record of that version begins with.
func header(version uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{recordFormat}, version)
}

// decode undoes encode, and returns a part of record. It may be given anything:
// others may write to the server.
func decode(record []byte) (value []byte, version uint64, err error) {
	switch {
	case len(record) < headerLen:
		return nil, 0, corrupt("it has %d bytes", len(record))
	case len(record) > headerLen+session.MaxValueLen:
		return nil, 0, corrupt("it has more than %d bytes", session.MaxValueLen)
	case record[0] != recordFormat:
		return nil, 0, corrupt("its format is %d", record[0])
	}
	version = binary.BigEndian.Uint64(record[1:headerLen])
	if version == 0 {
		return nil, 0, corrupt("its version is 0")
	}
	return record[headerLen:], version, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("redis: the server has something under the key that is no record of ours: %s: %w", fmt.Sprintf(format, args...), session.ErrCorrupt)
}

// milliseconds rounds a time to live up to what the server counts in; "0" is
// never.
func milliseconds(ttl time.Duration) string {
	ms := int64(ttl / time.Millisecond)
	if ttl%time.Millisecond != 0 {
		ms++
	}
	return strconv.FormatInt(ms, 10)
}

// Get implements [session.Provider].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	if err := session.CheckKey(key); err != nil {
		return session.Record{}, err
	}
	if err := s.ready(ctx); err != nil {
		return session.Record{}, err
	}
	reply, err := s.read(ctx, getScript, s.options.Prefix+key)
	if err != nil {
		return session.Record{}, s.failed(ctx, "get", err)
	}
	left, record, err := parseReply(reply)
	if err != nil {
		return session.Record{}, s.failed(ctx, "get", err)
	}
	if left == absent {
		return session.Record{}, session.ErrNotFound
	}
	r := session.Record{}
	if r.Value, r.Version, err = decode(record); err != nil {
		return session.Record{}, err
	}
	if left != never {
		// Less than a millisecond is left if it says 0. The longest ttl, rounded
		// up, is longer than the longest there is.
		r.TTL = time.Duration(min(max(left, 1), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
	return r, nil
}

// What PTTL returns instead of a time.
const (
	never  = -1
	absent = -2
)

// parseReply takes the answer of getScript apart.
func parseReply(reply []byte) (left int64, record []byte, err error) {
	number, record, ok := bytes.Cut(reply, []byte{' '})
	if left, err = strconv.ParseInt(string(number), 10, 64); err != nil || !ok || left < absent {
		return 0, nil, errReply
	}
	return left, record, nil
}

// Put implements [session.Provider].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := s.set(ctx, "put", key, value, ttl)
	return err
}

// PutIfAbsent implements [session.Provider].
func (s *Store) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	return s.set(ctx, "put if absent", key, value, ttl, "nx")
}

// set stores a record, and returns version 0 if the server declines.
func (s *Store) set(ctx context.Context, what, key string, value []byte, ttl time.Duration, more ...any) (uint64, error) {
	if err := session.CheckRecord(key, value, ttl, 0); err != nil {
		return 0, err
	}
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	record, version := encode(value)
	key = s.options.Prefix + key
	args := append(append(make([]any, 0, 6), "set", key, record), more...)
	if ttl != 0 {
		args = append(args, "px", milliseconds(ttl))
	}
	reply, err := s.write(ctx, key, args)
	switch {
	case errors.Is(err, redis.Nil):
		return 0, nil
	case err == nil && reply != "OK":
		err = errReply
	}
	if err != nil {
		return 0, s.failed(ctx, what, err)
	}
	return version, nil
}

// CompareAndSwap implements [session.Provider].
func (s *Store) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	if err := session.CheckRecord(key, value, ttl, 0); err != nil {
		return 0, err
	}
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	if version == 0 {
		return 0, nil // no record of ours has it
	}
	record, newVersion := encode(value)
	done, err := s.change(ctx, swapScript, key, header(version), record, milliseconds(ttl))
	if err != nil || !done {
		return 0, s.failed(ctx, "compare and swap", err)
	}
	return newVersion, nil
}

// Touch implements [session.Provider].
func (s *Store) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	if err := session.CheckRecord(key, nil, ttl, 0); err != nil {
		return false, err
	}
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	if version == 0 {
		return false, nil
	}
	done, err := s.change(ctx, touchScript, key, header(version), milliseconds(ttl))
	return done, s.failed(ctx, "touch", err)
}

// change runs a script that says whether it has changed the record.
func (s *Store) change(ctx context.Context, script *script, key string, args ...any) (bool, error) {
	reply, err := s.writeScript(ctx, script, s.options.Prefix+key, args...)
	if err != nil {
		return false, err
	}
	switch reply {
	case int64(0):
		return false, nil
	case int64(1):
		return true, nil
	default:
		return false, errReply
	}
}

// Delete implements [session.Provider].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := session.CheckKey(key); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	key = s.options.Prefix + key
	_, err := s.write(ctx, key, []any{"del", key})
	return s.failed(ctx, "delete", err)
}
