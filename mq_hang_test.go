package owtp_test

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
)

// A call through RabbitMQ whose handler does not return ends by its own time; its
// delivery is settled when the handler ends, its late answer is nobody's, and the
// queue goes on meanwhile.
func TestRabbitHangingHandlers(t *testing.T) {
	broker := servers.RabbitMQ(t)
	eachWay(t, []way{{connect: owtp.MQ}, {connect: owtp.MQ, sign: true}, {connect: owtp.MQ, suite: "sm4"}}, func(t *testing.T, w way) {
		s := rabbitStage(t, w, broker, func(h, _ *owtp.NodeConfig) { h.Store = sharedStore(t) }) // so that all goes through the shared queue
		obedient, stubborn := newSleeper(t), newSleeper(t)
		stubborn.stubborn = true
		must(t, s.host.HandleFunc("echo", echo))
		must(t, s.host.HandleFunc("obedient", obedient.handle))
		must(t, s.host.HandleFunc("stubborn", stubborn.handle))
		s.connect(t)
		for method, sl := range map[string]*sleeper{"obedient": obedient, "stubborn": stubborn} {
			for range 2 {
				_, err := s.client.CallContext(background(t), "testhost", method, nil, &owtp.CallOptions{Timeout: 200 * time.Millisecond})
				if e := wantStatus(t, err, owtp.ErrRequestTimeout); !e.MayHaveRun {
					t.Errorf("%s: the handler runs, but the caller is told: %v", method, err)
				}
				within(t, sl.began, "the handler")
			}
			answer(t, s.client, "testhost", "echo", method)
		}
		for range 2 {
			if err := within(t, obedient.ended, "the end of who obeys"); err == nil {
				t.Error("a handler was not told that its caller waits no more")
			}
		}
		if len(stubborn.ended) != 0 {
			t.Error("who does not obey has ended")
		}
		stubborn.wake()
		for range 2 {
			within(t, stubborn.ended, "the end of who does not obey")
		}
		for i := range 3 {
			answer(t, s.client, "testhost", "echo", i)
		}
		if len(obedient.began)+len(stubborn.began) != 0 {
			t.Error("a call has run twice")
		}
		// What was not settled comes back to the queue when its consumer goes.
		must(t, s.host.Close())
		never(t, "a delivery was not settled", func() bool { return rabbitLength(t, broker, s.dial.WriteQueueName) != 0 })
	})
}

// rabbitLength is how many messages of a queue nobody has taken.
func rabbitLength(t testing.TB, broker *servers.Server, queue string) int {
	t.Helper()
	conn, err := amqp.Dial(broker.DSN)
	if err != nil {
		t.Fatal("the broker refuses the test's own connection")
	}
	defer conn.Close()
	ch, err := conn.Channel()
	must(t, err)
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	must(t, err)
	return q.Messages
}
