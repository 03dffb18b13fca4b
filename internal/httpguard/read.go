package httpguard

import (
	"errors"
	"io"
)

// firstRead bounds what is allocated because a stranger's Content-Length says
// so. More is allocated only as it arrives.
const firstRead = 64 << 10

// smallRead is the first buffer where no length was claimed.
const smallRead = 512

// ErrTooLarge says that a body is longer than the limit.
var ErrTooLarge = errors.New("owtp: message too large")

// ReadBody reads r to its end, which is at most limit bytes away. claimed is
// the Content-Length, or negative.
func ReadBody(r io.Reader, claimed int64, limit int) ([]byte, error) {
	if claimed > int64(limit) {
		return nil, ErrTooLarge
	}
	// One byte more than expected, so that the end is seen without growing.
	size := smallRead
	if claimed >= 0 {
		size = int(min(claimed, firstRead)) + 1
	}
	buf := make([]byte, 0, min(size, limit+1))
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, ErrTooLarge
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = Grow(buf, limit+1)
		}
	}
}

// Grow returns a copy of buf with twice the room, but not more than most.
func Grow(buf []byte, most int) []byte {
	bigger := make([]byte, len(buf), min(2*cap(buf), most))
	copy(bigger, buf)
	return bigger
}
