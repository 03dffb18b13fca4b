package owtp

import (
	"context"
	"sync"
	"time"

	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/internal/wire"
	"github.com/owtp-go/owtp/transport"
)

// A writer gathers the packets of one link. Whatever waits when it comes round
// goes out as one record, without a timer, so that sealing and system calls are
// paid once for all of it (PROTOCOL §7). It has a goroutine while there is
// something to write and none otherwise; no lock is held while it writes.
type writer struct {
	mu      sync.Mutex
	queue   [][]byte
	octets  int
	writing bool
	space   chan struct{} // closed when room appears; nil if nobody waits
	idle    chan struct{} // closed when all is written; nil if nobody waits
}

const (
	// maxBatch is the most octets that are gathered; one packet may be larger.
	maxBatch = 64 << 10
	// controlRoom is how many more octets control packets may take.
	controlRoom = 64 << 10
	// packetCost is what a queued packet costs beside its octets.
	packetCost = 64
)

// push queues a packet and waits for room if it must.
func (w *writer) push(ctx context.Context, l *link, b []byte) error {
	for {
		w.mu.Lock()
		if w.octets == 0 || w.octets+len(b)+packetCost <= l.node.cfg.Limits.MaxQueued {
			return w.add(l, b)
		}
		if w.space == nil {
			w.space = make(chan struct{})
		}
		space := w.space
		w.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		}
	}
}

// pushNow queues a control packet. A peer that makes us queue more of them than
// it reads is cut off.
func (w *writer) pushNow(l *link, b []byte) error {
	w.mu.Lock()
	most := controlRoom // nothing else makes an unproved peer's queue long
	if l.send != nil {
		most += l.node.cfg.Limits.MaxQueued
	}
	if w.octets+len(b)+packetCost > most && w.octets > 0 {
		w.mu.Unlock()
		return errSlowPeer
	}
	return w.add(l, b)
}

var errSlowPeer = newError(ErrNetworkDisconnected, "the peer does not read what it asks for")

// add is called with the lock held and releases it.
func (w *writer) add(l *link, b []byte) error {
	if l.ended() {
		w.mu.Unlock()
		return context.Cause(l.ctx)
	}
	// Ten thousand strangers who do not read what they ask for share a budget.
	if l.send == nil && !l.node.unread.Take(len(b)+packetCost) {
		w.mu.Unlock()
		return errSlowPeer
	}
	w.queue = append(w.queue, b)
	w.octets += len(b) + packetCost
	start := !w.writing
	w.writing = true
	w.mu.Unlock()
	if start && !l.node.spawn(func() { w.run(l) }) {
		return errNodeClosed
	}
	return nil
}

// take removes the next batch, or reports that there is none and the writer is
// done.
func (w *writer) take(l *link, batch [][]byte) [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	size, n := 0, 0
	for n < len(w.queue) && n < wire.MaxRecordPackets {
		if n > 0 && (l.v1 != nil || size+len(w.queue[n]) > maxBatch) {
			break
		}
		size += len(w.queue[n])
		n++
	}
	batch = append(batch[:0], w.queue[:n]...)
	clear(w.queue[:n])
	if w.queue = w.queue[n:]; len(w.queue) == 0 {
		w.queue = nil
	}
	w.octets -= size + n*packetCost
	if l.send == nil {
		l.node.unread.Give(size + n*packetCost)
	}
	if n == 0 {
		w.writing = false
		if w.idle != nil {
			close(w.idle)
			w.idle = nil
		}
	}
	if w.space != nil {
		close(w.space)
		w.space = nil
	}
	return batch
}

func (w *writer) run(l *link) {
	var batch [][]byte
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		l.pace()
		if batch = w.take(l, batch); len(batch) == 0 {
			return
		}
		message, err := l.record((*buf)[:0], batch)
		if err == nil {
			*buf = message.Data
			ctx, cancel := context.WithTimeout(l.ctx, l.node.cfg.Limits.BodyTimeout)
			err = l.conn.Send(ctx, message)
			cancel()
		}
		if cap(*buf) > 2*maxBatch {
			*buf = make([]byte, 0, maxBatch)
		}
		if err != nil {
			l.fail(err)
		}
	}
}

// buffers are what records are built in.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// record builds one message of the packets.
func (l *link) record(b []byte, batch [][]byte) (transport.Message, error) {
	if l.form == transport.JSON {
		for i, p := range batch {
			if i > 0 {
				b = append(b, '\n')
			}
			b = append(b, p...)
		}
		return transport.Message{Form: transport.JSON, Data: b}, nil
	}
	typ := wire.TypePackets
	if l.send != nil {
		typ = wire.TypeRecord
	}
	b = wire.AppendHeader(b, typ)
	for _, p := range batch {
		b = wire.AppendRecordPacket(b, p)
	}
	if l.send == nil {
		return transport.Message{Form: transport.Binary, Data: b}, nil
	}
	for cap(b)-len(b) < secure.Overhead {
		b = append(b, make([]byte, secure.Overhead)...)[:len(b)]
	}
	b, err := l.send.Seal(b)
	if l.send.Used() >= renewShare {
		l.renew()
	}
	return transport.Message{Form: transport.Binary, Data: b}, err
}

// flush waits until all that is queued has been written, with a bound.
func (w *writer) flush(l *link, bound time.Duration) {
	w.mu.Lock()
	if !w.writing {
		w.mu.Unlock()
		return
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	t := time.NewTimer(bound)
	defer t.Stop()
	select {
	case <-idle:
	case <-l.ctx.Done():
	case <-t.C:
	}
}
