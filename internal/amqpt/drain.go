package amqpt

import (
	"cmp"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxLate is how many requests are refused at one time that came to the own
	// queue too late.
	maxLate = 64
	// lateTag is the tag of their consumer.
	lateTag = "late"
	// drainPause is between two looks at an own queue that is not empty yet.
	drainPause = 20 * time.Millisecond
)

// drain ends the consuming of requests when the endpoint is to stop: that of the
// shared queue at once, since other replicas are there for it, and that of the
// own queue when nobody writes to it any more.
func (c *consumer) drain() {
	defer close(c.drained)
	defer c.taking.Wait()
	e := c.e
	select {
	case <-e.work.stopping:
	case <-c.ended:
		return
	}
	if e.queues.Shared != "" {
		_ = c.requests.Cancel(e.queues.Shared, false)
	}
	// What runs may hold all places of the own queue's consumer, and what lies
	// behind it is to be answered all the same.
	deliveries, err := c.consumeAs(lateTag, c.requests, e.queues.Own, cap(e.late.slots))
	if err != nil {
		c.fail(err)
		return
	}
	c.take(e.queues.Own, deliveries)
	_ = c.requests.Cancel(e.queues.Own, false)
	for {
		left := e.lingers()
		if left <= 0 && c.endOwn() {
			return
		}
		again := time.NewTimer(cmp.Or(max(left, 0), drainPause))
		select {
		case <-again.C:
		case <-c.ended:
			return
		case <-e.ctx.Done():
			return
		}
	}
}

// lingers is for how much longer somebody may write to the own queue who has
// heard of this endpoint before.
func (e *endpoint) lingers() time.Duration {
	latest := e.latest.Load()
	if latest == 0 {
		return 0
	}
	return e.cfg.OwnQueueLinger - (time.Since(e.born) - time.Duration(latest))
}

// endOwn deletes the own queue if nothing lies in it, and reports whether it is
// gone. The broker ends its consumer, and returns what comes later. If there is
// something after all, it closes the channel that it was told on.
func (c *consumer) endOwn() bool {
	ch, err := c.conn.Channel()
	if err != nil {
		return false // the connection ends
	}
	defer ch.Close()
	q, err := ch.QueueDeclarePassive(c.e.queues.Own, false, true, true, false, nil)
	switch {
	case err != nil:
		return codeOf(err) == amqp.NotFound
	case q.Messages > 0:
		return false
	}
	_, err = ch.QueueDelete(c.e.queues.Own, false, true, false)
	return err == nil
}
