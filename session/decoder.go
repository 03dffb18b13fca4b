package session

import (
	"encoding/binary"
	"fmt"
)

// A decoder takes apart what an encoder wrote, or junk.
type decoder struct{ rest []byte }

func (d *decoder) corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

func (d *decoder) octet() (byte, error) {
	if len(d.rest) == 0 {
		return 0, d.corrupt("it ends early")
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b, nil
}

func (d *decoder) uvarint() (uint64, error) {
	u, n := binary.Uvarint(d.rest)
	if n <= 0 {
		return 0, d.corrupt("bad number")
	}
	d.rest = d.rest[n:]
	return u, nil
}

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.rest)) {
		return nil, d.corrupt("it ends early")
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b, nil
}

// name reads octets behind their length, at most max of them.
func (d *decoder) name(max int) ([]byte, error) {
	n, err := d.uvarint()
	if err != nil {
		return nil, err
	}
	if n > uint64(max) {
		return nil, d.corrupt("a name of %d bytes", n)
	}
	return d.take(n)
}

// length reads the length of a list or map; ok is false for nil.
func (d *decoder) length() (n int, ok bool, err error) {
	u, err := d.uvarint()
	if err != nil || u == 0 {
		return 0, false, err
	}
	if u-1 > uint64(len(d.rest)) {
		return 0, false, d.corrupt("%d elements in %d bytes", u-1, len(d.rest))
	}
	return int(u - 1), true, nil
}
