package amqpt

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// calls are those that wait for an answer, by their random IDs.
type calls struct {
	mu   sync.Mutex
	byID map[string]*call
}

type call struct {
	id  string
	end chan result // has room for one
}

type result struct {
	answer transport.Message
	err    error
}

func (c *calls) begin() *call {
	one := &call{id: rand.Text(), end: make(chan result, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID[one.id] = one
	return one
}

func (c *calls) forget(one *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byID, one.id)
}

// end gives a call its result and reports whether somebody waited for it: the
// second result for an ID finds nobody.
func (c *calls) end(id string, r result) bool {
	c.mu.Lock()
	one := c.byID[id]
	delete(c.byID, id)
	c.mu.Unlock()
	if one == nil {
		return false
	}
	one.end <- r
	return true
}

// strays counts messages that nobody waits for.
type strays struct{ n atomic.Uint64 }

// strayLog is how many of them are logged: the first ones, and one in so many.
const strayLog = 1000

// answered takes a delivery from the reply queue. Late, unknown and second
// answers and strangers' messages are dropped: whoever can write to the queue
// can send any number of them.
func (e *endpoint) answered(d amqp.Delivery) {
	if d.Type == probeType || e.calls.end(d.CorrelationId, e.readAnswer(d)) {
		return
	}
	if n := e.strays.n.Add(1); n <= 10 || n%strayLog == 0 {
		e.log.Debug("owtp: an answer that nobody waits for was dropped", "queue", e.queues.Reply, "bytes", len(d.Body), "dropped", n)
	}
}

// Exchange implements [transport.Exchanger]. Where the message lies until its
// answer comes is the broker's business: an error after it was published and
// before an answer says nothing of whether it was handled, but for a message that
// the broker returned, which satisfies ErrNotSent.
func (e *endpoint) Exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	answer, err := e.exchange(ctx, m)
	if err != nil && e.ctx.Err() != nil && !errors.Is(err, net.ErrClosed) {
		var refusal *transport.Refusal
		if !errors.As(err, &refusal) {
			err = closedError{err}
		}
	}
	return answer, err
}

func (e *endpoint) exchange(ctx context.Context, m transport.Message) (transport.Message, error) {
	if e.ctx.Err() != nil {
		return transport.Message{}, transport.NotSent(net.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return transport.Message{}, transport.NotSent(err)
	}
	m.To = cmp.Or(m.To, e.cfg.WriteQueueName)
	if err := e.unsendable(m); err != nil {
		return transport.Message{}, err
	}
	p, err := e.out.get(ctx, e.ctx.Done(), e.cfg.HandshakeTimeout)
	if err != nil {
		return transport.Message{}, err
	}
	if err := p.admit(ctx, e.ctx.Done()); err != nil {
		return transport.Message{}, err
	}
	// The session that the answer comes in on is chosen last: the others may
	// have been waited for, and publishing on one that has ended sends nothing.
	var c *consumer
	if !m.OneWay {
		if c, err = e.in.get(ctx, e.ctx.Done(), e.cfg.HandshakeTimeout); err != nil {
			return transport.Message{}, err
		}
	}
	one := e.calls.begin()
	defer e.calls.forget(one)
	out, err := p.publish(&p.requests, m.To, e.request(ctx, one, m))
	if err != nil {
		return transport.Message{}, err
	}
	defer out.leave()
	if m.OneWay {
		return transport.Message{}, e.confirmed(ctx, out, one)
	}
	return e.await(ctx, out, c, one)
}

func (e *endpoint) request(ctx context.Context, one *call, m transport.Message) amqp.Publishing {
	p := amqp.Publishing{
		ContentType:   contentType(m.Form),
		CorrelationId: one.id,
		DeliveryMode:  amqp.Persistent,
		Expiration:    expiration(e.lifetime(ctx, m.Expires)),
		Body:          m.Data,
	}
	if !m.OneWay {
		p.ReplyTo = e.queues.Reply
	}
	return p
}

// lifetime is how long the broker keeps a message: no longer than anybody wants.
func (e *endpoint) lifetime(ctx context.Context, expires time.Duration) time.Duration {
	d := e.cfg.MaxQueueTime
	if expires > 0 {
		d = min(d, expires)
	}
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline))
	}
	return d
}

// await waits for the answer, while the confirmation is under way.
func (e *endpoint) await(ctx context.Context, out sending, c *consumer, one *call) (transport.Message, error) {
	confirmed, lost := out.Done(), out.p.done()
	for {
		var err error
		select {
		case r := <-one.end:
			return r.answer, r.err
		case <-confirmed:
			if out.Acked() {
				confirmed, lost = nil, nil
				continue
			}
			err = out.refused()
		case <-lost:
			err = out.lost()
		case <-c.done():
			err = c.lost("the connection ended before the answer came")
		case <-e.ctx.Done():
			err = fmt.Errorf("owtp: exchange broken off: %w", net.ErrClosed)
		case <-ctx.Done():
			err = out.late(context.Cause(ctx))
		}
		// What has come is worth more than what went wrong after it.
		select {
		case r := <-one.end:
			return r.answer, r.err
		default:
			return transport.Message{}, err
		}
	}
}

// confirmed waits until the broker has taken a message that nobody answers.
func (e *endpoint) confirmed(ctx context.Context, out sending, one *call) error {
	select {
	case <-out.Done():
		if !out.Acked() {
			return out.refused()
		}
	case <-out.p.done():
		return out.lost()
	case <-e.ctx.Done():
		return fmt.Errorf("owtp: exchange broken off: %w", net.ErrClosed)
	case <-ctx.Done():
		return out.late(context.Cause(ctx))
	}
	out.lane.returned(out.p.done())
	select {
	case r := <-one.end:
		return r.err
	default:
		return nil
	}
}

// closedError is what a close broke off, with its cause.
type closedError struct{ error }

func (e closedError) Unwrap() error        { return e.error }
func (e closedError) Is(target error) bool { return target == net.ErrClosed }
