package amqpt_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

const patience = 20 * time.Second

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

// place is config with a queue of the test's own, which is gone before and after it.
func place(t testing.TB, s *servers.Server) transport.Config {
	t.Helper()
	queue := "owtp.test." + strings.ReplaceAll(t.Name(), "/", ".")
	ch := raw(t, s)
	remove(t, ch, queue, queue+".dead")
	t.Cleanup(func() { remove(t, raw(t, s), queue, queue+".dead") })
	cfg := config(s, queue)
	cfg.Logger = watched(t, cfg.Password)
	return cfg
}

// watched is a log in which a secret must not stand.
func watched(t testing.TB, secret string) *slog.Logger {
	return slog.New(slog.NewTextHandler(watch{t, secret}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type watch struct {
	t      testing.TB
	secret string
}

func (w watch) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.secret) {
		w.t.Error("the log contains the password")
	}
	return len(p), nil
}

// raw connects without the transport.
func raw(t testing.TB, s *servers.Server) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(s.DSN)
	if err != nil {
		t.Fatal("the broker refuses the test's own connection")
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

// send publishes a message of anybody's and waits for its confirm.
func send(t testing.TB, ch *amqp.Channel, queue string, m amqp.Publishing) {
	t.Helper()
	confirmation, err := ch.PublishWithDeferredConfirm("", queue, false, false, m)
	if err != nil {
		t.Fatal(err)
	}
	if !confirmation.Wait() {
		t.Fatalf("the broker did not take a message to %s", queue)
	}
}

// take waits for a message in a queue.
func take(t testing.TB, ch *amqp.Channel, queue string) amqp.Delivery {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		d, ok, err := ch.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return d
		}
	}
	t.Fatalf("nothing comes to queue %s", queue)
	return amqp.Delivery{}
}

func length(t testing.TB, ch *amqp.Channel, queue string) int {
	t.Helper()
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

func remove(t testing.TB, ch *amqp.Channel, queues ...string) {
	t.Helper()
	for _, q := range queues {
		if _, err := ch.QueueDelete(q, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
}

// open opens an endpoint that ends with the test.
func open(t testing.TB, cfg transport.Config, h transport.Handler) transport.Endpoint {
	t.Helper()
	return openWith(t, amqpt.New(), cfg, h)
}

func openWith(t testing.TB, tr *amqpt.Transport, cfg transport.Config, h transport.Handler) transport.Endpoint {
	t.Helper()
	e, err := tr.Open(t.Context(), cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// handle is a handler of a function.
func handle(f func(ctx context.Context, m transport.Message) (transport.Message, error)) transport.Handler {
	return transporttest.HandlerFuncs{Exchange: func(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		return f(ctx, m)
	}}
}

func message(text string) transport.Message {
	return transport.Message{Form: transport.Binary, Data: []byte(text)}
}

// ask makes one exchange that must succeed.
func ask(t testing.TB, x transport.Exchanger, text string) transport.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := x.Exchange(ctx, message(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func wantStatus(t testing.TB, err error, status int) {
	t.Helper()
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) || refusal.Status != status {
		t.Fatalf("got error %v, want a refusal with status %d", err, status)
	}
}

func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// within fails when ch is silent for too long.
func within[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}
