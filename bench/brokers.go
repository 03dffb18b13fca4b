package main

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	bareNATSSetting = "nats.go, a connection on each side; RequestWithContext and Respond in the subscription's goroutine; not durable"
	bareAMQPSetting = "amqp091-go, a connection to consume and one to publish on each side; the request to a quorum queue, persistent and confirmed, " +
		"acknowledged when its answer is confirmed; the answer through an exclusive queue; prefetch 64 and 512: the same queues and confirms that this library has for open calls"
)

func openBareNATS(_ context.Context, e *env, j job) (_ *line, err error) {
	s, err := e.broker("nats")
	if err != nil {
		return nil, err
	}
	var conns []*nats.Conn
	closeAll := func() {
		for _, c := range conns {
			c.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	for range 2 {
		c, err := nats.Connect(s.DSN)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	subject := "bench." + rand.Text()
	if _, err := conns[0].QueueSubscribe(subject, "q", func(m *nats.Msg) {
		v, err := j.format.decode(m.Data)
		if err != nil {
			return
		}
		if out, err := j.format.encode(v); err == nil {
			_ = m.Respond(out)
		}
	}); err != nil {
		return nil, err
	}
	if err := conns[0].Flush(); err != nil {
		return nil, err
	}
	call := func(ctx context.Context, _ int) error {
		out, err := j.format.encode(j.value)
		if err != nil {
			return err
		}
		m, err := conns[1].RequestWithContext(ctx, subject, out)
		if err != nil {
			return err
		}
		v, err := j.format.decode(m.Data)
		if err == nil && !sameSize(v, j.value) {
			err = errAnswer
		}
		return err
	}
	return &line{call, closeAll}, nil
}

// A bareQueue is what a program without this library would have.
type bareQueue struct {
	job
	queue, reply     string
	serving, calling amqpPair
	pending          sync.Map
	handlers         sync.WaitGroup
}

// An amqpPair is one side: a channel to consume and one to publish, each on a
// connection of its own.
type amqpPair struct{ in, out *amqp.Channel }

func openBareAMQP(_ context.Context, e *env, j job) (*line, error) {
	s, err := e.broker("rabbitmq")
	if err != nil {
		return nil, err
	}
	name := "bare." + rand.Text()
	q := &bareQueue{job: j, queue: name, reply: name + ".reply"}
	var conns []*amqp.Connection
	closeAll := func() {
		if q.serving.out != nil {
			_, _ = q.serving.out.QueueDelete(q.queue, false, false, false)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		q.handlers.Wait()
	}
	for _, ch := range []**amqp.Channel{&q.serving.in, &q.serving.out, &q.calling.in, &q.calling.out} {
		c, err := amqp.Dial(s.DSN)
		if err == nil {
			conns = append(conns, c)
			if *ch, err = c.Channel(); err == nil {
				err = (*ch).Confirm(false)
			}
		}
		if err != nil {
			closeAll()
			return nil, err
		}
	}
	if err := q.begin(); err != nil {
		closeAll()
		return nil, err
	}
	return &line{q.call, closeAll}, nil
}

func (q *bareQueue) begin() error {
	bounds := amqp.Table{"x-max-length": 1000, "x-overflow": "reject-publish", "x-message-ttl": 60000}
	answers, err := q.calling.consume(q.reply, true, 512, bounds)
	if err != nil {
		return err
	}
	durable := amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": q.queue + ".dead"}
	for k, v := range bounds {
		durable[k] = v
	}
	durable["x-max-length"] = 100_000
	requests, err := q.serving.consume(q.queue, false, 64, durable)
	if err != nil {
		return err
	}
	q.handlers.Go(func() {
		for d := range requests {
			q.handlers.Go(func() { q.answer(d) })
		}
	})
	q.handlers.Go(func() {
		for d := range answers {
			if c, ok := q.pending.LoadAndDelete(d.CorrelationId); ok {
				c.(chan []byte) <- d.Body
			}
			_ = d.Ack(false)
		}
	})
	return nil
}

func (l amqpPair) consume(queue string, private bool, prefetch int, args amqp.Table) (<-chan amqp.Delivery, error) {
	if _, err := l.in.QueueDeclare(queue, !private, private, private, false, args); err != nil {
		return nil, err
	}
	if err := l.in.Qos(prefetch, 0, false); err != nil {
		return nil, err
	}
	return l.in.Consume(queue, "", false, false, false, false, nil)
}

func (q *bareQueue) answer(d amqp.Delivery) {
	v, err := q.format.decode(d.Body)
	if err != nil {
		return
	}
	body, err := q.format.encode(v)
	if err != nil {
		return
	}
	confirmation, err := q.serving.out.PublishWithDeferredConfirm("", d.ReplyTo, true, false,
		amqp.Publishing{CorrelationId: d.CorrelationId, ContentType: d.ContentType, Expiration: d.Expiration, Body: body})
	if err == nil && confirmation.Wait() {
		_ = d.Ack(false)
	}
}

func (q *bareQueue) call(ctx context.Context, _ int) error {
	body, err := q.format.encode(q.value)
	if err != nil {
		return err
	}
	id, answer := rand.Text(), make(chan []byte, 1)
	q.pending.Store(id, answer)
	defer q.pending.Delete(id)
	confirmation, err := q.calling.out.PublishWithDeferredConfirmWithContext(ctx, "", q.queue, true, false,
		amqp.Publishing{CorrelationId: id, ReplyTo: q.reply, ContentType: "application/owtp", Expiration: "60000", DeliveryMode: amqp.Persistent, Body: body})
	if err != nil {
		return err
	}
	ok, err := confirmation.WaitContext(ctx)
	if err == nil && !ok {
		err = errors.New("the broker has refused the request")
	}
	if err != nil {
		return err
	}
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	select {
	case got := <-answer:
		v, err := q.format.decode(got)
		if err == nil && !sameSize(v, q.value) {
			err = errAnswer
		}
		return err
	case <-patience.C:
		return errors.New("no answer within a minute")
	case <-ctx.Done():
		return ctx.Err()
	}
}
