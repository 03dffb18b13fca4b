package amqpt_test

import (
	"testing"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func newTransport() transport.Transport { return amqpt.New() }

func TestConformance(t *testing.T) {
	s := servers.RabbitMQ(t)
	t.Run("Plain", func(t *testing.T) { conformance(t, s, transporttest.Options{}, "amqp://"+s.Addr) })
	t.Run("Exchange", func(t *testing.T) {
		ch := raw(t, s)
		if err := ch.ExchangeDeclare("owtp.suite", "direct", false, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		conformance(t, s, transporttest.Options{Tune: func(cfg *transport.Config) { cfg.Exchange = "owtp.suite" }}, "amqp://"+s.Addr)
		_ = ch.ExchangeDelete("owtp.suite", false, false)
	})
}

// conformance runs the suite; each listener finds an empty queue.
func conformance(t *testing.T, s *servers.Server, opts transporttest.Options, address string) {
	const queue = "owtp.suite"
	ch := raw(t, s)
	emptied := func(t testing.TB) string {
		remove(t, ch, queue, queue+".dead")
		return address
	}
	further := opts.Tune
	opts.Broker = true
	opts.Tune = func(cfg *transport.Config) {
		tune(s, queue)(cfg)
		if further != nil {
			further(cfg)
		}
	}
	transporttest.TestTransport(t, newTransport, emptied, opts)
	remove(t, ch, queue, queue+".dead")
}
