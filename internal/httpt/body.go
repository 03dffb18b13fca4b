package httpt

import (
	"io"
	"net"
	"sync"
)

// onceBody is a request's body that can be sent at most once, whatever
// net/http thinks of the state of a reused connection, and that knows whether
// sending has begun. A server gets no message of which no byte was read here.
//
// net/http may still read it on another goroutine when an exchange has ended,
// be it with an answer that came early; release keeps it off the caller's memory.
type onceBody struct {
	mu       sync.Mutex
	rest     []byte
	started  bool
	released bool
}

// newOnceBody returns a body over data.
func newOnceBody(data []byte) *onceBody {
	return &onceBody{rest: data}
}

// Read implements io.Reader.
func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.started && len(b.rest) == 0 {
		return 0, io.EOF // even when released: all of it went out
	}
	if b.released {
		return 0, net.ErrClosed
	}
	b.started = true
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close does nothing: net/http closes bodies that it may want to send later.
func (b *onceBody) Close() error { return nil }

// release ends all use of the data, and reports whether no byte of it was ever
// used, which then stays true.
func (b *onceBody) release() (unused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = true
	return !b.started
}

var _ io.ReadCloser = (*onceBody)(nil)
