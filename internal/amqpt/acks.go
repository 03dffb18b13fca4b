package amqpt

import (
	"slices"
	"sort"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ackPause is how long an acknowledgement waits for others at most.
const ackPause = time.Millisecond

// acks acknowledges requests many at a time: on its own, each costs a quorum
// queue an entry in its log, as its message did. One that waits takes one of the
// prefetch's places, and if the process ends in that time, the broker delivers a
// request again that was answered, as it may at any time. It is safe for concurrent
// use.
type acks struct {
	ch   acknowledger
	most int // that may wait

	mu      sync.Mutex
	dealt   spans // deliveries that were dealt with
	waiting []waitingAck
	timer   *time.Timer
	closed  bool
}

type waitingAck struct {
	tag  uint64
	long bool // since before the last time
}

type acknowledger interface {
	Ack(tag uint64, multiple bool) error
	Nack(tag uint64, multiple, requeue bool) error
}

// newAcks returns the acknowledgements of a channel that lets so many deliveries
// be under way. All its deliveries end in one of the three ways below.
func newAcks(ch acknowledger, prefetch int) *acks {
	a := &acks{ch: ch, most: max(prefetch/4, 1), dealt: spans{{}}}
	a.timer = time.AfterFunc(time.Hour, a.flush)
	a.timer.Stop()
	return a
}

// done says that a request was dealt with.
func (a *acks) done(d amqp.Delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dealt.add(d.DeliveryTag)
	a.waiting = append(a.waiting, waitingAck{tag: d.DeliveryTag})
	switch {
	case len(a.waiting) >= a.most || a.closed:
		a.send()
	case len(a.waiting) == 1:
		a.timer.Reset(ackPause)
	}
}

// giveBack lets the broker deliver a request to somebody else.
func (a *acks) giveBack(d amqp.Delivery) { a.refuse(d, true) }

// bury puts a request to the dead letters.
func (a *acks) bury(d amqp.Delivery) { a.refuse(d, false) }

func (a *acks) refuse(d amqp.Delivery, requeue bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dealt.add(d.DeliveryTag)
	_ = a.ch.Nack(d.DeliveryTag, false, requeue)
}

func (a *acks) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send()
}

// close sends what waits, and lets nothing wait any more.
func (a *acks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.send()
}

// send acknowledges, with the lock held, what has come without a gap by one
// message. What is behind a request that runs has a little time for that to end.
// Errors mean that the channel has ended, and the broker delivers again.
func (a *acks) send() {
	a.timer.Stop()
	last, all := uint64(0), len(a.waiting) >= a.most || a.closed
	rest := a.waiting[:0]
	for _, w := range a.waiting {
		switch {
		case w.tag <= a.dealt[0].last:
			last = max(last, w.tag)
		case w.long || all:
			_ = a.ch.Ack(w.tag, false)
		default:
			rest = append(rest, waitingAck{w.tag, true})
		}
	}
	a.waiting = rest
	if last != 0 {
		_ = a.ch.Ack(last, true)
	}
	if len(rest) > 0 {
		a.timer.Reset(ackPause)
	}
}

// spans are the numbers that were added, as spans without gaps between them, in
// order; the first begins at 0. There are at most as many as numbers that are
// missing.
type spans []span

type span struct{ first, last uint64 }

// add adds a number that was not added before.
func (s *spans) add(n uint64) {
	after := sort.Search(len(*s), func(i int) bool { return (*s)[i].first > n })
	before := &(*s)[after-1]
	joins := after < len(*s) && (*s)[after].first == n+1
	switch {
	case before.last+1 == n && joins:
		before.last = (*s)[after].last
		*s = slices.Delete(*s, after, after+1)
	case before.last+1 == n:
		before.last = n
	case joins:
		(*s)[after].first = n
	default:
		*s = slices.Insert(*s, after, span{n, n})
	}
}
