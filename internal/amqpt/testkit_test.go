package amqpt_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
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

// A relay lies between an endpoint and its broker, and can be cut and stalled.
type relay struct {
	listener net.Listener
	target   string
	tasks    sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	stalled chan struct{} // closed by resume; nil when it is not
	closed  bool
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target, conns: make(map[net.Conn]bool)}
	r.tasks.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.resume()
		r.cut()
		r.tasks.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns[in], r.conns[out] = true, true
		closed := r.closed
		r.mu.Unlock()
		if closed {
			r.cut()
		}
		r.tasks.Go(func() { r.copy(out, in) })
		r.tasks.Go(func() { r.copy(in, out) })
	}
}

func (r *relay) copy(to, from net.Conn) {
	_, _ = io.Copy(relayed{r, to}, from)
	_ = to.Close()
	_ = from.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, to)
	delete(r.conns, from)
}

// relayed holds what is written while the relay is stalled.
type relayed struct {
	r *relay
	net.Conn
}

func (w relayed) Write(p []byte) (int, error) {
	w.r.mu.Lock()
	stalled := w.r.stalled
	w.r.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	return w.Conn.Write(p)
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

func (r *relay) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stalled == nil {
		r.stalled = make(chan struct{})
	}
}

func (r *relay) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stalled != nil {
		close(r.stalled)
		r.stalled = nil
	}
}
