// Package natslink is the socket on which the packages for NATS write.
package natslink

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// How much may wait to be written before there is no room.
	highWater = 1 << 20

	// How long what was written last may still take when a connection is closed.
	lingering = time.Second
)

// A Pipe is a socket on which writing never waits: it only adds to a buffer, from
// which a goroutine writes. The client holds the lock of its connection while it
// writes, so that one write to a broker that does not read would hold up everybody
// who publishes, without regard to their deadlines. Who publishes asks for room
// first, in its own time.
//
// What is published by many goroutines at one time goes out together, which saves
// most of the system calls here and at the broker. A Pipe is safe for concurrent
// use.
type Pipe struct {
	net.Conn
	timeout time.Duration // for one write
	done    chan struct{}
	wake    chan struct{}
	left    atomic.Int64 // octets that are not written yet

	mu     sync.Mutex
	buf    []byte
	low    chan struct{} // closed when something was written; nil if nobody waits
	closed bool
}

// NewPipe takes the socket over. One write may take so long.
func NewPipe(conn net.Conn, timeout time.Duration) *Pipe {
	p := &Pipe{Conn: conn, timeout: timeout, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go p.run()
	return p
}

// Done is closed when the socket is, and no goroutine of the pipe is left.
func (p *Pipe) Done() <-chan struct{} { return p.done }

func (p *Pipe) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Write implements io.Writer.
func (p *Pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	p.buf = append(p.buf, b...)
	p.left.Add(int64(len(b)))
	p.signal()
	return len(b), nil
}

func (p *Pipe) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run writes until the pipe is closed or the socket fails.
func (p *Pipe) run() {
	defer close(p.done)
	defer p.Conn.Close()
	var b []byte
	for range p.wake {
		// Whoever can publish now does it before the write, and not right after.
		runtime.Gosched()
		var closed bool
		if b, closed = p.take(b); len(b) > 0 {
			if _, err := p.Conn.Write(b); err != nil {
				p.fail()
				return
			}
			p.wrote(len(b))
		}
		if closed {
			return
		}
	}
}

// take exchanges what there is to write for a written buffer, and sets the time
// that it may take.
func (p *Pipe) take(written []byte) (b []byte, closed bool) {
	if cap(written) > highWater {
		written = nil // a burst of large messages is over
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b, p.buf = p.buf, written[:0]
	timeout := p.timeout
	if p.closed {
		timeout = min(timeout, lingering)
	}
	_ = p.Conn.SetWriteDeadline(time.Now().Add(timeout))
	return b, p.closed
}

func (p *Pipe) wrote(octets int) {
	p.left.Add(-int64(octets))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell()
}

// tell wakes those who wait for room. The lock is held.
func (p *Pipe) tell() {
	if p.low != nil {
		close(p.low)
		p.low = nil
	}
}

func (p *Pipe) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.buf = true, nil
	p.tell()
}

// Close ends the pipe when what was written is out, or after a second. It does
// not wait for that.
func (p *Pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		_ = p.Conn.SetWriteDeadline(time.Now().Add(lingering))
	}
	p.tell()
	p.signal()
	return nil
}

// HasRoom reports whether something can be published without waiting.
func (p *Pipe) HasRoom() bool { return p.left.Load() < highWater }

// Room waits until there is room, which there almost always is, or ctx ends. A
// closed pipe has room; writing to it fails.
func (p *Pipe) Room(ctx context.Context) error {
	for !p.HasRoom() {
		low := p.waitLow()
		if low == nil {
			return nil
		}
		select {
		case <-low:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// waitLow returns what is closed when there may be room, or nil if there is.
func (p *Pipe) waitLow() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.HasRoom() || p.closed {
		return nil
	}
	if p.low == nil {
		p.low = make(chan struct{})
	}
	return p.low
}

// SetDeadline implements net.Conn; writing has its own.
func (p *Pipe) SetDeadline(t time.Time) error { return p.Conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (p *Pipe) SetWriteDeadline(time.Time) error { return nil }
