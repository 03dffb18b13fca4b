package amqpt

import (
	"net/http"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/transport"
)

// Messages of protocol version 1, where a listener takes them (Config.Legacy).
// They have the content type and no other property: no reply queue, no
// correlation. A node of version 1 reads one queue and writes to another, and its
// peer has the same two the other way round; answers and requests share them.

// typeLegacy is the content type of version 1's nodes, whatever is inside.
const typeLegacy = "text/plain"

// legacy tells a message of version 1 from one of this version.
func (e *endpoint) legacy(d amqp.Delivery) bool {
	return e.cfg.Legacy && d.ContentType == typeLegacy
}

// readLegacy checks a message of version 1. Of what else it says of itself only
// the broker's own mark counts.
func (e *endpoint) readLegacy(queue string, d amqp.Delivery) (transport.Message, *transport.Refusal) {
	if refusal := e.checkBody(d); refusal != nil {
		return transport.Message{}, refusal
	}
	return transport.Message{Form: transport.Legacy, Data: d.Body, To: queue, Redelivered: d.Redelivered}, nil
}

// answerLegacy publishes an answer as version 1's nodes do, to the queue that the
// handler names, and acknowledges the request. Unlike theirs it goes when nobody
// has read it in time: who is away would find its queue full of them.
func (c *consumer) answerLegacy(d amqp.Delivery, m transport.Message) {
	e := c.e
	if m.To != "" && len(m.Data) > 0 {
		// Nothing of the request's goes into it.
		if err := e.deliver(m.To, amqp.Delivery{}, m.Expires, amqp.Publishing{ContentType: typeLegacy, Body: m.Data}); err != nil {
			e.log.Warn("owtp: an answer could not be published; its request goes back to the queue", "queue", m.To, "error", err)
			c.acks.giveBack(d)
			return
		}
	}
	c.acks.done(d)
}

// refuseLegacy puts a message to the dead letters. Version 1 has no way to say
// why.
func (c *consumer) refuseLegacy(d amqp.Delivery, refusal *transport.Refusal) {
	c.e.log.Debug("owtp: AMQP message of version 1 refused", "status", refusal.Status, "reason", refusal.Reason)
	if refusal.Status == http.StatusServiceUnavailable && !d.Redelivered {
		c.acks.giveBack(d) // once, for a busy moment or for another replica
		return
	}
	c.acks.bury(d)
}
