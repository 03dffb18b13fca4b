package session

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

const (
	// recordFormat is the first octet of a stored session. A release that
	// changes what follows takes the next number and reads this one on.
	recordFormat = 1

	maxFieldName = 1024 // bytes: as long as a key of the store
	headerLen    = 1 + 8 + 8 + 8
)

// A life is one session's existence from its creation to its end: the next
// session of the same peer has another birth mark. Times are Unix
// milliseconds of the manager's clock.
type life struct {
	birth   uint64 // random, not zero
	created int64
	ends    int64 // absolute end; 0 is none
}

func newLife(now, absolute int64) life {
	var b [8]byte
	rand.Read(b[:]) // never fails: the program ends where there is no randomness
	l := life{birth: max(binary.BigEndian.Uint64(b[:]), 1), created: now}
	if absolute > 0 {
		l.ends = now + absolute
	}
	return l
}

// record is a stored session: its life and its fields, which stay encoded
// until somebody asks for one. So a replica can change one field of a session
// that has others of types it does not know.
type record struct {
	life
	fields []recordField
}

type recordField struct {
	name string
	data []byte
}

func parseLife(b []byte) (life, []byte, error) {
	if len(b) < headerLen {
		return life{}, nil, fmt.Errorf("%w: it has %d bytes", ErrCorrupt, len(b))
	}
	if b[0] != recordFormat {
		return life{}, nil, fmt.Errorf("%w: format %d", ErrCorrupt, b[0])
	}
	l := life{
		birth:   binary.BigEndian.Uint64(b[1:]),
		created: int64(binary.BigEndian.Uint64(b[9:])),
		ends:    int64(binary.BigEndian.Uint64(b[17:])),
	}
	if l.birth == 0 {
		return life{}, nil, fmt.Errorf("%w: no birth mark", ErrCorrupt)
	}
	return l, b[headerLen:], nil
}

func parseRecord(b []byte) (record, error) {
	l, rest, err := parseLife(b)
	if err != nil {
		return record{}, err
	}
	r := record{life: l}
	seen := make(map[string]struct{})
	d := decoder{rest: rest}
	for len(d.rest) > 0 {
		name, data, err := d.field()
		if err != nil {
			return record{}, err
		}
		if _, twice := seen[string(name)]; twice {
			return record{}, d.corrupt("field %.80q is there twice", name)
		}
		seen[string(name)] = struct{}{}
		r.fields = append(r.fields, recordField{string(name), data})
	}
	return r, nil
}

// field reads one field's name and its encoded value.
func (d *decoder) field() (name, data []byte, err error) {
	if name, err = d.name(maxFieldName); err != nil {
		return nil, nil, err
	}
	data, err = d.name(len(d.rest))
	return name, data, err
}

// findField looks one field up without taking the others apart.
func findField(fields []byte, want string) (data []byte, found bool, err error) {
	d := decoder{rest: fields}
	for len(d.rest) > 0 {
		name, data, err := d.field()
		if err != nil {
			return nil, false, err
		}
		if string(name) == want {
			return data, true, nil
		}
	}
	return nil, false, nil
}

func (r *record) encode() []byte {
	size := headerLen
	for _, f := range r.fields {
		size += len(f.name) + len(f.data) + 2*binary.MaxVarintLen32
	}
	b := append(make([]byte, 0, size), recordFormat)
	b = binary.BigEndian.AppendUint64(b, r.birth)
	b = binary.BigEndian.AppendUint64(b, uint64(r.created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.ends))
	for _, f := range r.fields {
		b = append(binary.AppendUvarint(b, uint64(len(f.name))), f.name...)
		b = append(binary.AppendUvarint(b, uint64(len(f.data))), f.data...)
	}
	return b
}

// set gives a field a value.
func (r *record) set(name string, data []byte) {
	for i := range r.fields {
		if r.fields[i].name == name {
			r.fields[i].data = data
			return
		}
	}
	r.fields = append(r.fields, recordField{name, data})
}

// remove takes a field away and reports whether it was there.
func (r *record) remove(name string) bool {
	for i := range r.fields {
		if r.fields[i].name == name {
			r.fields = append(r.fields[:i], r.fields[i+1:]...)
			return true
		}
	}
	return false
}
