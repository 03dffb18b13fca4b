package owtp

import (
	"context"
	"runtime"
	"slices"
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
	queue   []*batch // to be sent in this order; the last one takes more
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
	// largePacket is from where a packet is written out before the lock is
	// taken, which nobody should wait for that long.
	largePacket = 8 << 10
)

// A batch is a message in the making: packets one behind the other, which go out
// together.
type batch struct {
	data    []byte
	packets int
	cost    int // of the queue's octets

	link  *link       // that it is sent on
	watch *time.Timer // runs meanwhile
}

// smallestBatch is the room that a batch for several packets begins with.
const smallestBatch = 4 << 10

// batches are what messages are made in.
var batches = sync.Pool{New: func() any { return &batch{data: make([]byte, 0, smallestBatch)} }}

// newBatch returns one that will hold o at first. What is written out already
// gets no more room than it has: who does not read must not make small packets
// large, and in version 1 each is a batch.
func newBatch(o outgoing) *batch {
	if o.packet == nil {
		return new(batch)
	}
	return batches.Get().(*batch)
}

func (b *batch) release() {
	if cap(b.data) >= smallestBatch && cap(b.data) <= 2*maxBatch {
		*b = batch{data: b.data[:0], watch: b.watch}
		batches.Put(b)
	}
}

// An outgoing packet is one, or the octets of one that is written out already: in
// JSON the packet, and otherwise the message that holds it alone, with room to
// seal it.
type outgoing struct {
	packet *wire.Packet
	octets []byte
}

// size is about as many octets as it will have.
func (o outgoing) size() int {
	if o.packet == nil {
		return len(o.octets)
	}
	return o.packet.Room()
}

// push queues a packet and waits for room if it must. If it returns true the
// caller runs the writer.
func (w *writer) push(ctx context.Context, l *link, o outgoing) (run bool, err error) {
	if o, err = l.prepared(o); err != nil {
		return false, err
	}
	for {
		w.mu.Lock()
		if w.octets == 0 || w.octets+o.size()+packetCost <= l.node.cfg.Limits.MaxQueued {
			return w.add(l, o)
		}
		if w.space == nil {
			w.space = make(chan struct{})
		}
		space := w.space
		w.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-l.ctx.Done():
			return false, context.Cause(l.ctx)
		}
	}
}

// pushNow queues a control packet. A peer that makes us queue more of them than
// it reads is cut off.
func (w *writer) pushNow(l *link, o outgoing) (run bool, err error) {
	w.mu.Lock()
	most := controlRoom // nothing else makes an unproved peer's queue long
	if l.send != nil {
		most += l.node.cfg.Limits.MaxQueued
	}
	if w.octets+o.size()+packetCost > most && w.octets > 0 {
		w.mu.Unlock()
		return false, errSlowPeer
	}
	return w.add(l, o)
}

var errSlowPeer = newError(ErrNetworkDisconnected, "the peer does not read what it asks for")

// add is called with the lock held and releases it.
func (w *writer) add(l *link, o outgoing) (run bool, err error) {
	defer w.mu.Unlock()
	if l.ended() {
		return false, context.Cause(l.ctx)
	}
	var b *batch
	if n := len(w.queue); n > 0 && w.queue[n-1].takes(l, o) {
		b = w.queue[n-1]
	} else {
		b = newBatch(o)
		w.queue = append(w.queue, b)
	}
	before := len(b.data)
	if err = b.add(l, o); err == nil {
		cost := len(b.data) - before + packetCost
		// Ten thousand strangers who do not read what they ask for share a budget.
		if l.send != nil || l.node.unread.Take(cost) {
			b.packets++
			b.cost += cost
			w.octets += cost
			run = !w.writing
			w.writing = true
			return run, nil
		}
		err = errSlowPeer
	}
	if b.data = b.data[:before]; b.packets == 0 {
		w.queue = w.queue[:len(w.queue)-1]
		b.release()
	}
	return false, err
}

// takes reports whether one more packet may go out with those that are in b.
func (b *batch) takes(l *link, o outgoing) bool {
	return l.v1 == nil && b.packets < wire.MaxRecordPackets && len(b.data)+o.size() <= maxBatch
}

func (b *batch) add(l *link, o outgoing) (err error) {
	if l.form == transport.JSON {
		if b.packets > 0 {
			b.data = append(b.data, '\n')
		}
		if o.packet == nil && b.packets == 0 {
			b.data = o.octets
			return nil
		}
		if o.packet == nil {
			b.data = append(b.data, o.octets...)
			return nil
		}
		b.data, err = o.packet.AppendJSON(b.data)
		return err
	}
	switch {
	case o.packet == nil && b.packets == 0:
		b.data = o.octets
	case o.packet == nil:
		b.data = append(b.data, o.octets[wire.HeaderSize:]...)
	default:
		if b.packets == 0 {
			b.data = l.beginRecord(b.data, o.packet)
		}
		b.data = o.packet.AppendToRecord(b.data)
	}
	return nil
}

// beginRecord writes the header of a message, with room behind it for a packet.
func (l *link) beginRecord(b []byte, p *wire.Packet) []byte {
	b = slices.Grow(b, wire.HeaderSize+p.Room()+16+secure.Overhead)
	return wire.AppendHeader(b, l.typeOfRecord())
}

// prepared writes a large packet out.
func (l *link) prepared(o outgoing) (outgoing, error) {
	if o.packet == nil || o.size() < largePacket {
		return o, nil
	}
	if l.form == transport.JSON {
		b, err := o.packet.AppendJSON(nil)
		return outgoing{octets: b}, err
	}
	return outgoing{octets: o.packet.AppendToRecord(l.beginRecord(nil, o.packet))}, nil
}

func (l *link) typeOfRecord() wire.MessageType {
	if l.send != nil {
		return wire.TypeRecord
	}
	return wire.TypePackets
}

// take removes the next batch, or returns nil if there is none and the writer is
// done.
func (w *writer) take(l *link) *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.space != nil {
		close(w.space)
		w.space = nil
	}
	if len(w.queue) == 0 {
		w.writing = false
		if w.idle != nil {
			close(w.idle)
			w.idle = nil
		}
		return nil
	}
	b := w.queue[0]
	w.queue[copy(w.queue, w.queue[1:])] = nil
	w.queue = w.queue[:len(w.queue)-1]
	w.octets -= b.cost
	if l.send == nil {
		l.node.unread.Give(b.cost)
	}
	return b
}

// run writes until nothing is left to write.
func (w *writer) run(l *link) {
	for {
		if l.crowded() {
			runtime.Gosched() // who is about to send goes along
		}
		l.pace()
		b := w.take(l)
		if b == nil {
			return
		}
		message, err := l.finished(b)
		if err == nil {
			err = b.send(l, message)
		}
		b.release()
		if err != nil {
			l.fail(err)
		}
	}
}

// send sends a message that the batch was made to. The link ends if that takes
// longer than it may: a context for each would cost more than the writing.
func (b *batch) send(l *link, m transport.Message) error {
	b.link = l
	if most := l.node.cfg.Limits.BodyTimeout; b.watch == nil {
		b.watch = time.AfterFunc(most, b.overdue)
	} else {
		b.watch.Reset(most)
	}
	err := l.conn.Send(context.Background(), m)
	if !b.watch.Stop() {
		b.data = nil // overdue runs, and nobody else may have b
	}
	return err
}

func (b *batch) overdue() { b.link.fail(errNotRead) }

var errNotRead = newError(ErrNetworkDisconnected, "the peer does not read: a message could not be written in time")

// crowded reports whether others are likely to send at the same time.
func (l *link) crowded() bool { return l.going.Load() > 1 }

// write runs the writer on a goroutine of its own, if it is to run.
func (l *link) write(run bool, err error) error {
	if !run {
		return err
	}
	if !l.node.tasks.begin() {
		return errNodeClosed
	}
	go l.writeOut()
	return nil
}

func (l *link) writeOut() {
	defer l.node.tasks.end()
	l.out.run(l)
}

// finished seals a batch, if the link does that.
func (l *link) finished(b *batch) (transport.Message, error) {
	m := transport.Message{Form: l.form, Data: b.data}
	if l.send == nil {
		return m, nil
	}
	b.data = slices.Grow(b.data, secure.Overhead)
	var err error
	m.Data, err = l.send.Seal(b.data)
	if l.send.Used() >= renewShare {
		l.renew()
	}
	return m, err
}

// alone makes a message of one packet, for the first steps of a link.
func (l *link) alone(p *wire.Packet) (transport.Message, error) {
	b := new(batch)
	if err := b.add(l, outgoing{packet: p}); err != nil {
		return transport.Message{}, err
	}
	return l.finished(b)
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
