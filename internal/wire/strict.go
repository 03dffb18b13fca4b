package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The strict binary form is a subset of Protobuf's: two wire types, fields in
// ascending order, minimal varints, nothing that has its default value, nothing
// unknown. So one value has one encoding, and what was parsed marshals back to
// the same bytes (PROTOCOL §3).

const (
	typeVarint = 0
	typeBytes  = 2
)

// ErrMalformed is wrapped by every error about octets that are no packet.
var ErrMalformed = errors.New("malformed packet")

// ErrVersion is wrapped by errors about a protocol version that is not 2.
var ErrVersion = errors.New("unknown protocol version")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func appendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(field)<<3|typeVarint)
	return binary.AppendUvarint(b, v)
}

func appendOctets[T ~[]byte | ~string](b []byte, field int, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(field)<<3|typeBytes)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendFixed writes an octet string of fixed size; all zeros means absent.
func appendFixed(b []byte, field int, v []byte) []byte {
	for _, c := range v {
		if c != 0 {
			return appendOctets(b, field, v)
		}
	}
	return b
}

// A reader walks the fields of one message. After an error it stays at it.
type reader struct {
	rest  []byte
	field int
	typ   int
	num   uint64
	oct   []byte
	err   error
}

// uvarint reads a minimal varint.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	v, n = binary.Uvarint(b)
	if n <= 0 || b[n-1] == 0 { // a last group of zero bits is padding
		return 0, 0
	}
	return v, n
}

// next moves to the next field and reports whether there is one. Fields that
// may repeat are named by the caller; all others must ascend.
func (r *reader) next(repeated int) bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	tag, n := uvarint(r.rest)
	if n == 0 || tag>>3 == 0 || tag>>3 > 1<<20 {
		return r.fail("bad field tag")
	}
	field, typ := int(tag>>3), int(tag&7)
	if field < r.field || field == r.field && field != repeated {
		return r.fail("field %d after field %d", field, r.field)
	}
	r.field, r.typ, r.rest = field, typ, r.rest[n:]
	v, n := uvarint(r.rest)
	if n == 0 {
		return r.fail("field %d: bad number", field)
	}
	r.rest = r.rest[n:]
	switch typ {
	case typeVarint:
		if v == 0 {
			return r.fail("field %d: default value written", field)
		}
		r.num = v
	case typeBytes:
		if v == 0 {
			return r.fail("field %d: empty value written", field)
		}
		if v > uint64(len(r.rest)) {
			return r.fail("field %d: %d octets of %d", field, len(r.rest), v)
		}
		r.oct, r.rest = r.rest[:v:v], r.rest[v:]
	default:
		return r.fail("field %d: wire type %d", field, typ)
	}
	return true
}

func (r *reader) fail(format string, args ...any) bool {
	if r.err == nil {
		r.err = malformed(format, args...)
	}
	return false
}

func (r *reader) unknown() { r.fail("unknown field %d", r.field) }

func (r *reader) uint(limit uint64) uint64 {
	if r.typ != typeVarint {
		r.fail("field %d: want a number", r.field)
		return 0
	}
	if r.num > limit {
		r.fail("field %d: %d is over %d", r.field, r.num, limit)
		return 0
	}
	return r.num
}

func (r *reader) octets(limit int) []byte {
	if r.typ != typeBytes {
		r.fail("field %d: want octets", r.field)
		return nil
	}
	if len(r.oct) > limit {
		r.fail("field %d: %d octets, at most %d", r.field, len(r.oct), limit)
		return nil
	}
	return r.oct
}

func (r *reader) exactly(size int) []byte {
	b := r.octets(size)
	if r.err == nil && len(b) != size {
		r.fail("field %d: %d octets, want %d", r.field, len(b), size)
	}
	return b
}

// fixed reads into out, whose zero value means absent and is not to be written.
func (r *reader) fixed(out []byte) {
	b := r.exactly(len(out))
	if r.err != nil {
		return
	}
	copy(out, b)
	for _, c := range b {
		if c != 0 {
			return
		}
	}
	r.fail("field %d: all zeros", r.field)
}

func (r *reader) text(limit int) string {
	b := r.octets(limit)
	if !utf8.Valid(b) {
		r.fail("field %d: invalid UTF-8", r.field)
		return ""
	}
	return string(b)
}

// textAs is text that is probably the same as last time.
func (r *reader) textAs(last string, limit int) string {
	if r.typ == typeBytes && string(r.oct) == last && len(last) <= limit {
		return last
	}
	return r.text(limit)
}

func versionError(v uint64) error {
	return fmt.Errorf("%w: %d, this node speaks %d", ErrVersion, v, Version)
}
