package amqpt_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

const benchSize = 256

// BenchmarkExchange is a message and its answer. Calls through queues are
// measured by bench/, with the bare client beside them.
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
