package amqpt_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
)

// legacyPlace is a listener that takes both versions, on the exchange that nodes
// of version 1 use, and the queue that its version 1 peer has declared.
func legacyPlace(t testing.TB, s *servers.Server, ch *amqp.Channel) (cfg transport.Config, peer string) {
	t.Helper()
	cfg = place(t, s)
	cfg.Legacy, cfg.Exchange, cfg.MaxMessage = true, "amq.direct", 1000
	peer = cfg.ReadQueueName + ".peer"
	remove(t, ch, peer)
	// As they do: durable, without arguments.
	if _, err := ch.QueueDeclare(peer, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, raw(t, s), peer) })
	if err := ch.QueueBind(peer, peer, "amq.direct", false, nil); err != nil {
		t.Fatal(err)
	}
	return cfg, peer
}

// v1Send publishes as nodes of version 1 do.
func v1Send(t testing.TB, ch *amqp.Channel, queue, body string) {
	t.Helper()
	send1(t, ch, queue, amqp.Publishing{ContentType: "text/plain", Body: []byte(body)})
}

func send1(t testing.TB, ch *amqp.Channel, queue string, m amqp.Publishing) {
	t.Helper()
	confirmation, err := ch.PublishWithDeferredConfirm("amq.direct", queue, false, false, m)
	if err != nil {
		t.Fatal(err)
	}
	if !confirmation.Wait() {
		t.Fatalf("the broker did not take a message to %s", queue)
	}
}

// TestLegacyMessages: on one queue the content type tells the versions apart.
// What is of version 1 is answered in the queue that the handler names, with the
// properties of version 1 and nothing of the request's.
func TestLegacyMessages(t *testing.T) {
	s := servers.RabbitMQ(t)
	ch := raw(t, s)
	cfg, peer := legacyPlace(t, s, ch)
	l := open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		if m.Form != transport.Legacy {
			return transport.Message{Form: m.Form, Data: m.Data}, nil
		}
		if m.ReplyTo != "" || m.Expires != 0 || m.To != cfg.ReadQueueName {
			t.Errorf("of a message of version 1 this is believed: %+v", m)
		}
		if string(m.Data) == "silence" {
			return transport.Message{Form: transport.Legacy, To: peer}, nil
		}
		return transport.Message{Form: transport.Legacy, Data: append([]byte("re: "), m.Data...), To: peer}, nil
	}))
	thief := transport.ReplyQueuePrefix + "thief"
	remove(t, ch, thief)
	if _, err := ch.QueueDeclare(thief, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(thief, thief, "amq.direct", false, nil); err != nil {
		t.Fatal(err)
	}
	v1Send(t, ch, cfg.ReadQueueName, "silence")
	v1Send(t, ch, cfg.ReadQueueName, "hello")
	d := take(t, ch, peer)
	if string(d.Body) != "re: hello" || d.ContentType != "text/plain" || d.CorrelationId != "" || d.ReplyTo != "" || d.Type != "" || d.Headers != nil || d.MessageId != "" || d.Priority != 0 || d.DeliveryMode == amqp.Persistent {
		t.Errorf("the answer is %+v", d)
	}
	if d.Expiration != "60000" {
		t.Errorf("an answer that nobody reads stays for %q ms", d.Expiration)
	}
	// Whoever says where the answer is to go, and how long it lives, is not heard.
	send1(t, ch, cfg.ReadQueueName, amqp.Publishing{ContentType: "text/plain", ReplyTo: thief, CorrelationId: "x", Expiration: "50000", Type: "owtp.refusal", Headers: amqp.Table{"status": int32(401)}, AppId: "x", Body: []byte("forged")})
	if d := take(t, ch, peer); string(d.Body) != "re: forged" || d.CorrelationId != "" || d.Expiration != "60000" || d.Type != "" || d.Headers != nil {
		t.Errorf("the answer is %+v", d)
	}
	// This version is served beside it.
	x := open(t, cfg, nil)
	if m := ask(t, x, "two"); string(m.Data) != "two" || m.Form != transport.Binary {
		t.Errorf("version 2: %+v", m)
	}
	if n := length(t, ch, thief) + length(t, ch, peer); n != 0 {
		t.Errorf("%d messages that nobody was to get", n)
	}
	if q := l.Queues(); length(t, ch, q.Shared) != 0 {
		t.Error("a message was not taken from the queue")
	}
}

// TestLegacyRefused: what cannot be read ends in the dead letters, and nobody is
// told, in no queue that a stranger names.
func TestLegacyRefused(t *testing.T) {
	s := servers.RabbitMQ(t)
	ch := raw(t, s)
	cfg, peer := legacyPlace(t, s, ch)
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		switch string(m.Data) {
		case "junk":
			return transport.Message{To: peer}, &transport.Refusal{Status: 400, Reason: "no packet"}
		case "fail":
			return transport.Message{}, errors.New("secret")
		case "panic":
			panic("planted")
		}
		return transport.Message{Form: transport.Legacy, Data: m.Data, To: peer}, nil
	}))
	reply := transport.ReplyQueuePrefix + "v1stranger"
	remove(t, ch, reply)
	if _, err := ch.QueueDeclare(reply, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(reply, reply, "amq.direct", false, nil); err != nil {
		t.Fatal(err)
	}
	for _, m := range []amqp.Publishing{
		{Body: []byte("junk")}, {Body: []byte("fail")}, {Body: []byte("panic")}, {}, {Body: make([]byte, cfg.MaxMessage+1)}, {ContentEncoding: "gzip", Body: []byte("x")},
	} {
		m.ContentType, m.ReplyTo, m.CorrelationId = "text/plain", reply, "x"
		send1(t, ch, cfg.ReadQueueName, m)
		if d := take(t, ch, cfg.ReadQueueName+".dead"); string(d.Body) != string(m.Body) {
			t.Errorf("the dead letter is %q, not %q", d.Body, m.Body)
		}
	}
	v1Send(t, ch, cfg.ReadQueueName, "goes on")
	if d := take(t, ch, peer); string(d.Body) != "goes on" {
		t.Errorf("got %q", d.Body)
	}
	if n := length(t, ch, reply) + length(t, ch, peer); n != 0 {
		t.Errorf("%d messages say what was wrong", n)
	}
}

// TestLegacyComesAgain: what was not answered when its consumer died is delivered
// again, and marked; and so is once what comes in a busy moment.
func TestLegacyComesAgain(t *testing.T) {
	s := servers.RabbitMQ(t)
	ch := raw(t, s)
	cfg, peer := legacyPlace(t, s, ch)
	began := make(chan bool, 2)
	first := open(t, cfg, handle(func(ctx context.Context, m transport.Message) (transport.Message, error) {
		began <- m.Redelivered
		<-ctx.Done()
		return transport.Message{}, context.Canceled
	}))
	v1Send(t, ch, cfg.ReadQueueName, "hello")
	if within(t, "the first delivery", began) {
		t.Error("the first delivery is marked as another")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	busy := true
	second := open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		began <- m.Redelivered
		if string(m.Data) == "busy" && busy {
			busy = false
			return transport.Message{}, &transport.Refusal{Status: 503, Reason: "too busy"}
		}
		return transport.Message{Form: transport.Legacy, Data: m.Data, To: peer}, nil
	}))
	if !within(t, "the second delivery", began) {
		t.Error("the second delivery is not marked")
	}
	if d := take(t, ch, peer); string(d.Body) != "hello" {
		t.Errorf("got %q", d.Body)
	}
	v1Send(t, ch, cfg.ReadQueueName, "busy")
	if within(t, "a busy moment", began) || !within(t, "the next delivery", began) {
		t.Error("what came in a busy moment is not marked when it comes again")
	}
	if d := take(t, ch, peer); string(d.Body) != "busy" {
		t.Errorf("got %q", d.Body)
	}
	// An answer to a queue that is not there is nobody's, and its request is done.
	remove(t, ch, peer)
	v1Send(t, ch, cfg.ReadQueueName, "gone")
	within(t, "a request of who has gone", began)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := second.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	soon(t, "the request is settled", func() bool { return length(t, ch, cfg.ReadQueueName) == 0 })
}

// TestLegacyNotAllowed: without Legacy, version 1 is another type that nobody
// takes.
func TestLegacyNotAllowed(t *testing.T) {
	s := servers.RabbitMQ(t)
	ch := raw(t, s)
	cfg, _ := legacyPlace(t, s, ch)
	cfg.Legacy = false
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		t.Errorf("%q reached the handler", m.Data)
		return m, nil
	}))
	v1Send(t, ch, cfg.ReadQueueName, "hello")
	if d := take(t, ch, cfg.ReadQueueName+".dead"); !strings.Contains(string(d.Body), "hello") {
		t.Errorf("the dead letter is %q", d.Body)
	}
}
