package nats

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// The client holds the lock of its connection while it writes, so that one
	// write to a broker that does not read would hold up everybody who publishes,
	// without regard to their deadlines. Here a write only adds to a buffer. Who
	// publishes asks for room first, in its own time.
	highWater = 1 << 20

	// How long what was written last may still take when a connection is closed.
	lingering = time.Second
)

// A pipe is a socket on which writing never waits: a goroutine of its own writes
// what has come together. It is safe for concurrent use.
type pipe struct {
	net.Conn
	timeout time.Duration // for one write
	done    chan struct{} // the writer has ended, and the socket is closed
	wake    chan struct{}

	mu     sync.Mutex
	buf    []byte        // not written yet
	low    chan struct{} // closed when buf is below the mark again; nil if nobody waits
	closed bool
}

func newPipe(conn net.Conn, timeout time.Duration) *pipe {
	p := &pipe{Conn: conn, timeout: timeout, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go p.run()
	return p
}

// Write implements io.Writer.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	p.buf = append(p.buf, b...)
	p.signal()
	return len(b), nil
}

func (p *pipe) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// room waits until there is room, which there almost always is, or ctx ends.
func (p *pipe) room(ctx context.Context) error {
	for {
		low, ok := p.hasRoom()
		if ok {
			return nil
		}
		select {
		case <-low:
		case <-p.done:
			return net.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hasRoom reports whether there is room, or returns what is closed when there
// is. A closed pipe has room; writing to it fails.
func (p *pipe) hasRoom() (low <-chan struct{}, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.buf) < highWater || p.closed {
		return nil, true
	}
	if p.low == nil {
		p.low = make(chan struct{})
	}
	return p.low, false
}

// run writes until the pipe is closed or the socket fails.
func (p *pipe) run() {
	defer close(p.done)
	defer p.Conn.Close()
	var b []byte
	for range p.wake {
		for {
			var closed bool
			if b, closed = p.take(b); len(b) == 0 {
				if closed {
					return
				}
				break
			}
			timeout := p.timeout
			if closed {
				timeout = min(timeout, lingering)
			}
			_ = p.Conn.SetWriteDeadline(time.Now().Add(timeout))
			if _, err := p.Conn.Write(b); err != nil {
				p.fail()
				return
			}
		}
	}
}

// take exchanges what there is to write for a written buffer.
func (p *pipe) take(written []byte) (b []byte, closed bool) {
	if cap(written) > highWater {
		written = nil // a burst of large messages is over
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b, p.buf = p.buf, written[:0]
	if p.low != nil {
		close(p.low)
		p.low = nil
	}
	return b, p.closed
}

func (p *pipe) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.buf = nil
	if p.low != nil {
		close(p.low)
		p.low = nil
	}
}

// Close ends the pipe when what was written is out, or after a second. It does
// not wait for that.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.signal()
	return nil
}

// SetDeadline implements net.Conn; writing needs none.
func (p *pipe) SetDeadline(t time.Time) error { return p.Conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. The writer sets its own.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
