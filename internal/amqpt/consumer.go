package amqpt

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	replyPrefetch = 512 // answers on the way to us
	replyAck      = 64  // of them are acknowledged together
)

// A consumer is the session that messages come in on. Publishing has another
// one: a broker that is short of memory stops reading from who publishes, and
// answers and acknowledgements are to go on.
type consumer struct {
	*session
	e        *endpoint
	requests *amqp.Channel // nil without a handler
	acks     *acks         // of requests
	taking   sync.WaitGroup
	drained  chan struct{} // closed after Shutdown, when no request comes any more; nil without requests
	replies  *amqp.Channel
}

// openConsumer connects, declares the queues and consumes them.
func (e *endpoint) openConsumer(ctx context.Context) (*consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	s, err := dial(ctx, e, "in")
	if err != nil {
		return nil, err
	}
	c := &consumer{session: s, e: e}
	stop := s.within(ctx)
	if err = c.setUp(); err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.close()
		return nil, inTime(ctx, err)
	}
	return c, nil
}

func (c *consumer) setUp() (err error) {
	if c.replies, err = c.channel("the channel of answers"); err != nil {
		return readable(err)
	}
	if err := (&topology{e: c.e, ch: c.replies}).declare(); err != nil {
		return err
	}
	answers, err := c.consume(c.replies, c.e.queues.Reply, replyPrefetch)
	if err != nil {
		return err
	}
	c.tasks.Go(func() { c.takeAnswers(answers) })
	if c.e.handler == nil || c.e.work.draining() {
		return nil
	}
	if c.requests, err = c.channel("the channel of requests"); err != nil {
		return readable(err)
	}
	c.acks = newAcks(c.requests, cap(c.e.work.slots))
	for _, queue := range []string{c.e.queues.Shared, c.e.queues.Own} {
		if queue == "" {
			continue
		}
		deliveries, err := c.consume(c.requests, queue, cap(c.e.work.slots))
		if err != nil {
			return err
		}
		c.take(queue, deliveries)
	}
	c.drained = make(chan struct{})
	c.tasks.Go(c.drain)
	return nil
}

// consume begins with a prefetch of the consumer's own. The queue's name is the
// consumer's tag.
func (c *consumer) consume(ch *amqp.Channel, queue string, prefetch int) (<-chan amqp.Delivery, error) {
	return c.consumeAs(queue, ch, queue, prefetch)
}

func (c *consumer) consumeAs(tag string, ch *amqp.Channel, queue string, prefetch int) (<-chan amqp.Delivery, error) {
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return nil, readable(err)
	}
	deliveries, err := ch.Consume(queue, tag, false, false, false, false, nil)
	if err != nil {
		return nil, step{"consuming queue", queue, "read queue " + queue}.explain(err, c.e)
	}
	return deliveries, nil
}

// close hides the session's: what was answered is not to come again.
func (c *consumer) close() {
	if c.acks != nil {
		c.acks.close()
	}
	c.session.close()
}

// take begins to take requests from a queue.
func (c *consumer) take(queue string, deliveries <-chan amqp.Delivery) {
	c.taking.Add(1)
	c.tasks.Go(func() {
		defer c.taking.Done()
		c.takeRequests(queue, deliveries)
	})
}

// takeRequests gives what is delivered to the handler, each on a goroutine. When
// the endpoint is to stop, what would have to wait for its turn goes back if it
// is from the shared queue, and is late if it is from the own one, which nobody
// else consumes.
func (c *consumer) takeRequests(queue string, deliveries <-chan amqp.Delivery) {
	e, own := c.e, queue == c.e.queues.Own
	for d := range deliveries {
		e.latest.Store(int64(time.Since(e.born)))
		work, late := e.work, own && e.work.draining()
		if late {
			work = e.late
		}
		begun := work.begin(c.ended)
		if !begun && own && !late {
			work, late = e.late, true
			begun = work.begin(c.ended)
		}
		if !begun {
			c.acks.giveBack(d)
			continue
		}
		go func() {
			defer work.finish()
			c.serve(queue, d, late)
		}()
	}
	if !c.requests.IsClosed() && !c.e.work.draining() {
		c.notConsumed(queue)
	}
}

// takeAnswers gives answers to the calls that wait for them. They are
// acknowledged many at a time; the rest in time for RabbitMQ, which closes a
// channel that owes an acknowledgement for half an hour.
func (c *consumer) takeAnswers(deliveries <-chan amqp.Delivery) {
	rest := time.NewTicker(time.Minute)
	defer rest.Stop()
	taken, acknowledged := uint64(0), uint64(0)
	for {
		select {
		case d, open := <-deliveries:
			if !open {
				if !c.replies.IsClosed() {
					c.notConsumed(c.e.queues.Reply)
				}
				return
			}
			c.e.answered(d)
			if taken = d.DeliveryTag; taken-acknowledged < replyAck {
				continue
			}
		case <-rest.C:
			if taken == acknowledged {
				continue
			}
		}
		_ = c.replies.Ack(taken, true)
		acknowledged = taken
	}
}

// notConsumed ends the session when the broker has cancelled a consumer. The
// next one declares the queue again.
func (c *consumer) notConsumed(queue string) {
	c.fail(fmt.Errorf("the broker stopped the delivery from queue %q, as if it had been deleted", queue))
}
