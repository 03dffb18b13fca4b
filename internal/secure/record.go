package secure

import (
	"crypto/cipher"
	"crypto/hkdf"
	"encoding/binary"
	"errors"

	"github.com/owtp-go/owtp/internal/atrest"
	"github.com/owtp-go/owtp/internal/wire"
)

const (
	ivSize = 12
	// Overhead is the number of octets that sealing adds to a record's body.
	Overhead = 16

	// MaxRecords and MaxOctets end the life of a key on a long connection
	// (PROTOCOL §6). The analysis of GCM allows far more records of this size;
	// both are low enough to be reached in tests of renewal, never in doubt.
	MaxRecords = 1 << 24
	MaxOctets  = 64 << 30
)

var (
	// ErrOpen says that a sealed message does not open: it was changed, comes
	// at the wrong place or was sealed with another key.
	ErrOpen = errors.New("sealed message does not open")
	// ErrLimit says that a key has sealed as much as it may.
	ErrLimit = errors.New("key used up")
	// ErrErased says that the secrets are gone. Zeros are a key that everybody
	// knows; nothing may be sealed or opened with them.
	ErrErased = atrest.ErrErased
)

// A Direction seals or opens the records of one direction of a long
// connection, in order. It is not safe for concurrent use.
type Direction struct {
	aead   cipher.AEAD
	iv     [ivSize]byte
	nonce  [ivSize]byte
	count  uint64
	octets uint64
	broken bool // a record did not open; nothing behind it ever will

	maxRecords, maxOctets uint64
}

// Directions returns the two directions of a long connection. The session's
// secrets are erased: they have no further use.
func (s *Session) Directions() (send, receive *Direction, err error) {
	if s.erased() {
		return nil, nil, ErrErased
	}
	if send, err = s.direction(s.send[:]); err != nil {
		return nil, nil, err
	}
	if receive, err = s.direction(s.receive[:]); err != nil {
		return nil, nil, err
	}
	clear(s.send[:])
	clear(s.receive[:])
	return send, receive, nil
}

func (s *Session) direction(secret []byte) (*Direction, error) {
	key, err := hkdf.Expand(s.Suite.hash, secret, infoRecordKey, s.Suite.keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	iv, err := hkdf.Expand(s.Suite.hash, secret, infoRecordIV, ivSize)
	if err != nil {
		return nil, err
	}
	aead, err := s.Suite.aead(key)
	if err != nil {
		return nil, err
	}
	d := &Direction{aead: aead, maxRecords: MaxRecords, maxOctets: MaxOctets}
	copy(d.iv[:], iv)
	return d, nil
}

// Limit lowers the bounds of the key's life; it cannot raise them.
func (d *Direction) Limit(records, octets uint64) {
	d.maxRecords = min(d.maxRecords, records)
	d.maxOctets = min(d.maxOctets, octets)
}

// Used returns the larger of the used shares of both bounds, 0 to 1.
func (d *Direction) Used() float64 {
	if d.maxRecords == 0 || d.maxOctets == 0 {
		return 1
	}
	return max(float64(d.count)/float64(d.maxRecords), float64(d.octets)/float64(d.maxOctets))
}

// step accounts for n octets and returns the nonce: the IV with the record's
// number, big-endian, XORed into its end, as TLS 1.3 does (RFC 8446 §5.3).
func (d *Direction) step(n int) ([]byte, error) {
	if d.count >= d.maxRecords || d.octets+uint64(n) > d.maxOctets {
		return nil, ErrLimit
	}
	d.nonce = d.iv
	tail := d.nonce[ivSize-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^d.count)
	d.count++
	d.octets += uint64(n)
	return d.nonce[:], nil
}

// Seal encrypts a record in place. It begins with the header, which stays
// readable and is authenticated.
func (d *Direction) Seal(record []byte) ([]byte, error) {
	nonce, err := d.step(len(record))
	if err != nil {
		return nil, err
	}
	header, body := record[:wire.HeaderSize], record[wire.HeaderSize:]
	sealed := d.aead.Seal(body[:0], nonce, body, header)
	if cap(record)-wire.HeaderSize >= len(sealed) {
		return record[:wire.HeaderSize+len(sealed)], nil
	}
	return append(header[:len(header):len(header)], sealed...), nil
}

// Open decrypts a record in place and returns its body. After an error the
// direction is dead: a record that somebody replaced by junk must not become a
// gap in front of the next one.
func (d *Direction) Open(record []byte) ([]byte, error) {
	if d.broken {
		return nil, ErrOpen
	}
	plain, err := d.open(record)
	d.broken = err != nil
	return plain, err
}

func (d *Direction) open(record []byte) ([]byte, error) {
	typ, body, err := wire.ParseHeader(record)
	if err != nil {
		return nil, err
	}
	if typ != wire.TypeRecord || len(body) < Overhead {
		return nil, ErrOpen
	}
	nonce, err := d.step(len(record) - Overhead)
	if err != nil {
		return nil, err
	}
	plain, err := d.aead.Open(body[:0], nonce, body, record[:wire.HeaderSize])
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
