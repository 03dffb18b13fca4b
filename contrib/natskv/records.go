package natskv

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/session"
)

const (
	// A value follows eight octets of its version.
	versionLen = 8

	// A record that is deleted is written over by a mark with this header, and the
	// mark expires. To take the last message away would not do: the server removes
	// those that were written over without noting it at once, and after a crash the
	// one before the last would be there again. markTTL is several times as long as
	// the server takes to note it.
	headerDeleted = "Owtp-Deleted"
	markTTL       = 10 * time.Minute

	// overhead is what a message has beside the value: the version and headers.
	overhead = versionLen + 256

	// maxTTL is the longest time.Duration in seconds, rounded up.
	maxTTL = int64(math.MaxInt64/time.Second) + 1
)

// A kept is a record as it lies in the stream.
type kept struct {
	session.Record
	sequence uint64 // of its message, also where that is a mark; 0 if there is none
}

func (k *kept) absent() bool { return k.Version == 0 }

// subject is where the record of a key lies. Keys are octets of any kind, so that
// they are written in letters that mean nothing to the server.
func (s *Store) subject(key string) string {
	return s.options.subjects() + base64.RawURLEncoding.EncodeToString([]byte(key))
}

// keyOf is the inverse of subject.
func (s *Store) keyOf(subject string) (string, error) {
	prefix := s.options.subjects()
	if len(subject) <= len(prefix) {
		return "", fmt.Errorf("nats: the stream has the foreign subject %.80q", subject)
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(subject[len(prefix):])
	if err != nil {
		return "", fmt.Errorf("nats: the stream has the foreign subject %.80q", subject)
	}
	return string(key), nil
}

// Get implements [session.Provider].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return session.Record{}, err
	}
	defer end()
	if err := session.CheckKey(key); err != nil {
		return session.Record{}, err
	}
	k, err := s.read(ctx, key)
	if err == nil && k.absent() {
		err = session.ErrNotFound
	}
	return k.Record, err
}

// read returns what lies under a key. The server leaves out what has expired.
func (s *Store) read(ctx context.Context, key string) (kept, error) {
	m, err := s.stream.GetLastMsgForSubject(ctx, s.subject(key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, s.failed(ctx, "reading a record", err)
	}
	if m.Header.Get(headerDeleted) != "" {
		return kept{sequence: m.Sequence}, nil
	}
	if len(m.Data) < versionLen || binary.BigEndian.Uint64(m.Data) == 0 {
		return kept{}, fmt.Errorf("nats: message %d of the stream %s is no record of this store", m.Sequence, s.options.streamName())
	}
	k := kept{sequence: m.Sequence}
	k.Version, k.Value = binary.BigEndian.Uint64(m.Data), m.Data[versionLen:]
	if ttl := m.Header.Get(jetstream.MsgTTLHeader); ttl != "" {
		seconds, err := strconv.ParseInt(ttl, 10, 64)
		if err != nil || seconds < 1 || seconds > maxTTL {
			return kept{}, fmt.Errorf("nats: message %d of the stream %s has the time to live %.40q, which is none of this store's", m.Sequence, s.options.streamName(), ttl)
		}
		// The server still has it, so that something is left.
		k.TTL = max(time.Duration(seconds)*time.Second-s.now(ctx).Sub(m.Time), time.Millisecond)
	}
	return k, nil
}

// Put implements [session.Provider].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	ctx, end, err := s.beginWrite(ctx, key, value, ttl)
	if err != nil {
		return err
	}
	defer end()
	_, err = s.write(ctx, key, newVersion(), value, ttl)
	return err
}

// PutIfAbsent implements [session.Provider].
func (s *Store) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	ctx, end, err := s.beginWrite(ctx, key, value, ttl)
	if err != nil {
		return 0, err
	}
	defer end()
	version := newVersion()
	for last := uint64(0); ; {
		done, err := s.write(ctx, key, version, value, ttl, jetstream.WithExpectLastSequencePerSubject(last))
		switch {
		case err != nil:
			return 0, err
		case done:
			return version, nil
		}
		k, err := s.read(ctx, key)
		if err != nil || !k.absent() {
			return 0, err
		}
		last = k.sequence // a mark, or nothing any more
	}
}

// CompareAndSwap implements [session.Provider].
func (s *Store) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	ctx, end, err := s.beginWrite(ctx, key, value, ttl)
	if err != nil {
		return 0, err
	}
	defer end()
	next := newVersion()
	done, err := s.replace(ctx, key, version, next, func(kept) []byte { return value }, ttl)
	if err != nil || !done {
		return 0, err
	}
	return next, nil
}

// Touch implements [session.Provider].
func (s *Store) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	ctx, end, err := s.beginWrite(ctx, key, nil, ttl)
	if err != nil {
		return false, err
	}
	defer end()
	return s.replace(ctx, key, version, version, func(k kept) []byte { return k.Value }, ttl)
}

// replace writes over the record that has a version. A record that was touched
// between reading and writing still has it, and is read again.
func (s *Store) replace(ctx context.Context, key string, version, next uint64, value func(kept) []byte, ttl time.Duration) (bool, error) {
	for {
		k, err := s.read(ctx, key)
		if err != nil || k.absent() || k.Version != version {
			return false, err
		}
		done, err := s.write(ctx, key, next, value(k), ttl, jetstream.WithExpectLastSequencePerSubject(k.sequence))
		if err != nil || done {
			return done, err
		}
	}
}

// Delete implements [session.Provider].
func (s *Store) Delete(ctx context.Context, key string) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := session.CheckKey(key); err != nil {
		return err
	}
	for {
		k, err := s.read(ctx, key)
		if err != nil || k.absent() {
			return err
		}
		m := &natsgo.Msg{Subject: s.subject(key), Header: natsgo.Header{headerDeleted: {"1"}}}
		if done, err := s.publish(ctx, m, s.markTTL, jetstream.WithExpectLastSequencePerSubject(k.sequence)); err != nil || done {
			return err
		}
	}
}

// beginWrite is begin with a check of what is to be written.
func (s *Store) beginWrite(ctx context.Context, key string, value []byte, ttl time.Duration) (context.Context, func(), error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := session.CheckRecord(key, value, ttl, s.traits.MaxValue); err != nil {
		end()
		return nil, nil, err
	}
	return ctx, end, nil
}

// write stores a record unless the server finds that an expectation does not hold.
// It tries once: a second attempt could find the first one's record.
func (s *Store) write(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration, expect ...jetstream.PublishOpt) (bool, error) {
	m := &natsgo.Msg{Subject: s.subject(key), Header: make(natsgo.Header), Data: binary.BigEndian.AppendUint64(make([]byte, 0, versionLen+len(value)), version)}
	m.Data = append(m.Data, value...)
	return s.publish(ctx, m, ttl, expect...)
}

func (s *Store) publish(ctx context.Context, m *natsgo.Msg, ttl time.Duration, expect ...jetstream.PublishOpt) (bool, error) {
	if ttl > 0 {
		m.Header[jetstream.MsgTTLHeader] = []string{strconv.FormatInt(int64((ttl-1)/time.Second)+1, 10)}
	}
	_, err := s.js.PublishMsg(ctx, m, append(expect, jetstream.WithRetryAttempts(0), jetstream.WithExpectStream(s.options.streamName()))...)
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return false, nil
	}
	return err == nil, s.failed(ctx, "writing a record", err)
}

// newVersion draws 64 random bits, of which not all are zero.
func newVersion() uint64 {
	var b [versionLen]byte
	rand.Read(b[:])
	return max(binary.BigEndian.Uint64(b[:]), 1)
}
