package owtp_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// BenchmarkQueue is a call from node to node through RabbitMQ, in turns with a
// request and its answer of the bare client: through the same kinds of queue,
// both confirmed, the request acknowledged when its answer was confirmed. Signed
// and sealed calls have less to wait for: where the host's store is its own, they
// go to its connection's own queue, which is not durable.
func BenchmarkQueue(b *testing.B) {
	broker := servers.RabbitMQ(b)
	payload := benchPayload(256)
	for _, form := range benchForms[:3] {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("amqp/%s/%d/256B", form.name, callers), func(b *testing.B) {
				s := rabbitStage(b, way{owtp.MQ, form.sign, form.suite}, broker)
				must(b, s.host.HandleFunc("echo", echo))
				s.connect(b)
				bare := newBareQueue(b, broker)
				transporttest.Beside(b, callers, func(ctx context.Context) error { return bare.request(ctx, payload) }, func(context.Context) error {
					resp, err := s.client.CallSync("testhost", "echo", payload)
					if err == nil && !resp.OK() {
						err = fmt.Errorf("status %d %q", resp.Status, resp.Msg)
					}
					return err
				})
			})
		}
	}
}

// A bareQueue is what a program without this package would have: on each side a
// connection to consume and one to publish.
type bareQueue struct {
	queue, reply     string
	serving, calling bareLines
	pending          sync.Map
}

type bareLines struct{ in, out *amqp.Channel }

func newBareQueue(b *testing.B, s *servers.Server) *bareQueue {
	name := "bare." + rand.Text()
	q := &bareQueue{queue: name, reply: name + ".reply", serving: newBareLines(b, s), calling: newBareLines(b, s)}
	b.Cleanup(func() { _, _ = q.serving.out.QueueDelete(q.queue, false, false, false) })
	bounds := amqp.Table{"x-max-length": 1000, "x-overflow": "reject-publish", "x-message-ttl": 60000}
	answers := q.calling.consume(b, q.reply, true, 512, bounds)
	durable := amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name + ".dead"}
	for k, v := range bounds {
		durable[k] = v
	}
	requests := q.serving.consume(b, q.queue, false, 64, durable)
	go func() {
		for d := range requests {
			go q.answer(d)
		}
	}()
	go func() {
		for d := range answers {
			if c, ok := q.pending.LoadAndDelete(d.CorrelationId); ok {
				c.(chan []byte) <- d.Body
			}
			_ = d.Ack(false)
		}
	}()
	return q
}

func newBareLines(b *testing.B, s *servers.Server) bareLines {
	open := func() *amqp.Channel {
		conn, err := amqp.Dial(s.DSN)
		must(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		ch, err := conn.Channel()
		must(b, err)
		must(b, ch.Confirm(false))
		return ch
	}
	return bareLines{open(), open()}
}

func (l bareLines) consume(b *testing.B, queue string, private bool, prefetch int, args amqp.Table) <-chan amqp.Delivery {
	_, err := l.in.QueueDeclare(queue, !private, private, private, false, args)
	must(b, err)
	must(b, l.in.Qos(prefetch, 0, false))
	deliveries, err := l.in.Consume(queue, "", false, false, false, false, nil)
	must(b, err)
	return deliveries
}

func (q *bareQueue) answer(d amqp.Delivery) {
	confirmation, err := q.serving.out.PublishWithDeferredConfirm("", d.ReplyTo, true, false,
		amqp.Publishing{CorrelationId: d.CorrelationId, ContentType: d.ContentType, Expiration: d.Expiration, Body: d.Body})
	if err == nil && confirmation.Wait() {
		_ = d.Ack(false)
	}
}

func (q *bareQueue) request(ctx context.Context, body []byte) error {
	id, answer := rand.Text(), make(chan []byte, 1)
	q.pending.Store(id, answer)
	confirmation, err := q.calling.out.PublishWithDeferredConfirmWithContext(ctx, "", q.queue, true, false,
		amqp.Publishing{CorrelationId: id, ReplyTo: q.reply, ContentType: "application/owtp", Expiration: "60000", DeliveryMode: amqp.Persistent, Body: body})
	if err != nil {
		return err
	}
	if _, err := confirmation.WaitContext(ctx); err != nil {
		return err
	}
	select {
	case got := <-answer:
		if !bytes.Equal(got, body) {
			return fmt.Errorf("%d octets, want the %d of the request", len(got), len(body))
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
