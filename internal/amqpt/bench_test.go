package amqpt_test

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

const benchSize = 256

// BenchmarkExchange and BenchmarkBare do the same: a request and its answer
// through the same kinds of queue, both confirmed, the request acknowledged when
// its answer was confirmed.
func BenchmarkExchange(b *testing.B) {
	s := servers.RabbitMQ(b)
	cfg := config(s, "owtp.bench")
	l, err := amqpt.New().Listen(b.Context(), cfg, transporttest.Echo())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	x, err := amqpt.New().DialExchange(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	m := transport.Message{Form: transport.Binary, Data: make([]byte, benchSize)}
	bench(b, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := x.Exchange(ctx, m)
		return err
	})
	remove(b, raw(b, s), "owtp.bench", "owtp.bench.dead")
}

func bench(b *testing.B, call func() error) {
	for _, c := range []struct {
		name    string
		callers int
	}{{"1", 1}, {"64", 64}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			for range c.callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						if err := call(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

func BenchmarkBare(b *testing.B) {
	s := servers.RabbitMQ(b)
	const queue = "bare.bench"
	serving, calling := newBare(b, s), newBare(b, s)
	requests := serving.consume(b, queue, 64)
	go func() {
		for d := range requests {
			go func() {
				confirmation, err := serving.out.PublishWithDeferredConfirm("", d.ReplyTo, true, false,
					amqp.Publishing{CorrelationId: d.CorrelationId, ContentType: d.ContentType, Expiration: d.Expiration, Body: d.Body})
				if err == nil && confirmation.Wait() {
					_ = d.Ack(false)
				}
			}()
		}
	}()
	answers := calling.consume(b, "bare.bench.reply", 512)
	var pending sync.Map
	go func() {
		for d := range answers {
			if c, ok := pending.LoadAndDelete(d.CorrelationId); ok {
				c.(chan []byte) <- d.Body
			}
			_ = d.Ack(false)
		}
	}()
	body := make([]byte, benchSize)
	bench(b, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		id, answer := rand.Text(), make(chan []byte, 1)
		pending.Store(id, answer)
		confirmation, err := calling.out.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false,
			amqp.Publishing{CorrelationId: id, ReplyTo: "bare.bench.reply", ContentType: "application/owtp", Expiration: "60000", DeliveryMode: amqp.Persistent, Body: body})
		if err != nil {
			return err
		}
		if _, err := confirmation.WaitContext(ctx); err != nil {
			return err
		}
		select {
		case <-answer:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	remove(b, raw(b, s), queue)
}

// bare is what a program without this package would have: a connection to
// consume and one to publish.
type bare struct{ in, out *amqp.Channel }

func newBare(b *testing.B, s *servers.Server) bare { return bare{raw(b, s), raw(b, s)} }

func (c bare) consume(b *testing.B, queue string, prefetch int) <-chan amqp.Delivery {
	args := amqp.Table{"x-queue-type": "quorum", "x-max-length": 1000, "x-overflow": "reject-publish", "x-message-ttl": 60000, "x-delivery-limit": 20,
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue + ".dead"}
	private := queue == "bare.bench.reply"
	if private {
		args = amqp.Table{"x-max-length": 1000, "x-overflow": "reject-publish", "x-message-ttl": 60000}
	}
	if _, err := c.in.QueueDeclare(queue, !private, private, private, false, args); err != nil {
		b.Fatal(err)
	}
	if err := c.in.Qos(prefetch, 0, false); err != nil {
		b.Fatal(err)
	}
	deliveries, err := c.in.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		b.Fatal(err)
	}
	return deliveries
}
