package httpguard

import (
	"errors"
	"io"

	"github.com/owtp-go/owtp/transport"
)

// firstRead bounds what is allocated because a stranger's Content-Length says
// so. More is allocated only as it arrives.
const firstRead = 64 << 10

// smallRead is the first buffer where no length was claimed.
const smallRead = 512

// ErrTooLarge says that a body is longer than the limit.
var ErrTooLarge = errors.New("owtp: message too large")

// freeRead is what every message may have without asking the budget.
const freeRead = 4 << 10

// ErrBusy says that the budget for messages that are being received is used up.
var ErrBusy = errors.New("owtp: too much is being received at one time")

// ReadBody reads r to its end, which is at most limit bytes away. claimed is
// the Content-Length, or negative. What it takes from the budget it returns as
// held, also with an error, and the caller gives it back when it is done.
func ReadBody(r io.Reader, claimed int64, limit int, budget *transport.Budget) (data []byte, held int, err error) {
	if claimed > int64(limit) {
		return nil, 0, ErrTooLarge
	}
	// One byte more than expected, so that the end is seen without growing.
	size := smallRead
	if claimed >= 0 {
		size = int(min(claimed, firstRead)) + 1
	}
	size = min(size, limit+1)
	if size > freeRead {
		if budget.Take(size) {
			held = size
		} else {
			size = freeRead
		}
	}
	buf := make([]byte, 0, size)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, held, ErrTooLarge
		}
		if err == io.EOF {
			return buf, held, nil
		}
		if err != nil {
			return nil, held, err
		}
		if len(buf) < cap(buf) {
			continue
		}
		more := min(2*cap(buf), limit+1) - held
		if 2*cap(buf) > freeRead {
			if !budget.Take(more) {
				return nil, held, ErrBusy
			}
			held += more
		}
		buf = Grow(buf, limit+1)
	}
}

// Grow returns a copy of buf with twice the room, but not more than most.
func Grow(buf []byte, most int) []byte {
	bigger := make([]byte, len(buf), min(2*cap(buf), most))
	copy(bigger, buf)
	return bigger
}
