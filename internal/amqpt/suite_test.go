package amqpt_test

import (
	"net/url"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// config names the account of a broker and one queue for both sides.
func config(s *servers.Server, queue string) transport.Config {
	cfg := transporttest.Config("amqp://" + s.Addr)
	tune(s, queue)(&cfg)
	return cfg
}

func tune(s *servers.Server, queue string) func(*transport.Config) {
	u, err := url.Parse(s.DSN)
	if err != nil {
		panic("the broker's DSN is not a URL")
	}
	password, _ := u.User.Password()
	return func(cfg *transport.Config) {
		cfg.Account, cfg.Password = u.User.Username(), password
		cfg.Name = "test"
		cfg.ReadQueueName, cfg.WriteQueueName = queue, queue
		cfg.MaxDeliveries = 64
		cfg.MaxQueueLength = 1000
		cfg.MaxQueueTime = time.Minute
	}
}

// raw connects without the transport.
func raw(t testing.TB, s *servers.Server) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(s.DSN)
	if err != nil {
		t.Fatal("the broker refuses the test's own connection")
	}
	t.Cleanup(func() { _ = conn.Close() })
	return rawChannel(t, conn)
}

func rawChannel(t testing.TB, conn *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

func remove(t testing.TB, ch *amqp.Channel, queues ...string) {
	t.Helper()
	for _, q := range queues {
		if _, err := ch.QueueDelete(q, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConformance(t *testing.T) {
	s := servers.RabbitMQ(t)
	const queue = "owtp.suite"
	ch := raw(t, s)
	emptied := func(t testing.TB) string {
		remove(t, ch, queue, queue+".dead")
		return "amqp://" + s.Addr
	}
	transporttest.TestTransport(t, func() transport.Transport { return amqpt.New() }, emptied,
		transporttest.Options{Broker: true, Tune: tune(s, queue)})
	remove(t, ch, queue, queue+".dead")
}
