package amqpt

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// freeSize is the size of messages that the budget for receiving does not count.
const freeSize = 4 << 10

// serve is the straight way of one request: check, handler, answer, and the
// acknowledgement once the answer is the broker's. If this process ends
// somewhere on the way, the broker delivers the request again.
func (c *consumer) serve(queue string, d amqp.Delivery, late bool) {
	e := c.e
	m, refusal := e.read(queue, d)
	if refusal != nil {
		c.refuse(d, refusal)
		return
	}
	m.Late = late
	if held := len(m.Data); held > freeSize {
		if !e.cfg.Receiving.Take(held) {
			c.refuse(d, &transport.Refusal{Status: http.StatusServiceUnavailable, Reason: "too busy; try again later"})
			return
		}
		defer e.cfg.Receiving.Give(held)
	}
	answer, err := e.call(transport.Remote{Addr: e.at.host, LocalAddr: c.local}, m)
	switch {
	case err == nil:
		c.answer(d, answer)
	case e.ctx.Err() != nil && errors.Is(err, context.Canceled):
		c.acks.giveBack(d) // it was not finished because we are to end; somebody else may
	case errors.As(err, &refusal):
		c.refuse(d, refusal)
	default:
		e.log.Error("owtp: exchange failed", "queue", queue, "error", err)
		c.refuse(d, &transport.Refusal{Status: http.StatusInternalServerError, Reason: "internal error"})
	}
}

// call keeps a handler's panic on its own request.
func (e *endpoint) call(from transport.Remote, m transport.Message) (answer transport.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("owtp: handler panicked", "queue", m.To, "panic", p, "stack", string(debug.Stack()))
			err = &transport.Refusal{Status: http.StatusInternalServerError, Reason: "internal error"}
		}
	}()
	return e.handler.ServeExchange(e.ctx, from, m)
}

// answer publishes what the handler said, to where it said or else to who
// asked, and acknowledges the request.
func (c *consumer) answer(d amqp.Delivery, m transport.Message) {
	e := c.e
	if e.legacy(d) {
		c.answerLegacy(d, m)
		return
	}
	to := m.To
	if to == "" && isReplyQueue(d.ReplyTo) {
		to = d.ReplyTo
	}
	switch {
	case len(to) > maxName:
		// The library would end the connection for it.
		e.log.Warn("owtp: an answer was dropped, since no queue's name is so long", "bytes", len(to))
	case to != "":
		err := e.deliver(to, d, m.Expires, amqp.Publishing{ContentType: contentType(m.Form), Body: m.Data})
		if err != nil {
			e.log.Warn("owtp: an answer could not be published; its request goes back to the queue", "queue", to, "error", err)
			c.acks.giveBack(d)
			return
		}
	}
	c.acks.done(d)
}

// refuse says what is wrong with a request, and puts it to the dead letters.
func (c *consumer) refuse(d amqp.Delivery, refusal *transport.Refusal) {
	e := c.e
	if e.legacy(d) {
		c.refuseLegacy(d, refusal)
		return
	}
	e.log.Debug("owtp: AMQP request refused", "status", refusal.Status, "reason", refusal.Reason)
	if isReplyQueue(d.ReplyTo) {
		if err := e.deliver(d.ReplyTo, d, 0, writeRefusal(refusal)); err != nil {
			e.log.Debug("owtp: a refusal could not be published", "error", err)
		}
	}
	c.acks.bury(d)
}

// deliver publishes an answer and waits until the broker has it, or has said that
// nobody wants it, or nobody waits any more. After a connection that is lost
// meanwhile the answer is published once more: a second one finds no caller. An
// error means that the broker may not have it.
func (e *endpoint) deliver(to string, d amqp.Delivery, expires time.Duration, m amqp.Publishing) error {
	lifetime := e.cfg.MaxQueueTime
	for _, limit := range []time.Duration{expires, expiresOf(d.Expiration, lifetime)} {
		if limit > 0 {
			lifetime = min(lifetime, limit)
		}
	}
	m.CorrelationId, m.Expiration = d.CorrelationId, expiration(lifetime)
	late := time.NewTimer(lifetime)
	defer late.Stop()
	for range deliverAttempts - 1 {
		if err := e.deliverOnce(to, m, late.C); err == nil || !errors.Is(err, errLost) {
			return err
		}
	}
	return e.deliverOnce(to, m, late.C)
}

// deliverAttempts is on how many connections an answer is published at most.
const deliverAttempts = 3

func (e *endpoint) deliverOnce(to string, m amqp.Publishing, late <-chan time.Time) error {
	p, err := e.out.get(e.answering, nil, e.cfg.HandshakeTimeout)
	if err != nil {
		return err
	}
	var out sending
	if err = p.admit(e.answering, nil); err == nil {
		out, err = p.publish(&p.answers, to, m)
	}
	if err != nil {
		select {
		case <-p.done():
			return errLost
		default:
			return err
		}
	}
	defer out.leave()
	select {
	case <-out.Done():
		if out.isLost() {
			return errLost
		}
		return nil // taken, returned, or refused by a queue that is full of answers
	case <-p.done():
		return errLost
	case <-late:
		return nil
	case <-e.answering.Done():
		return net.ErrClosed
	}
}
