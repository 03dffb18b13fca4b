package amqpt_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
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

// TestForeignMessages puts into a node's queue what is no message of OWTP's: it
// ends in the dead letters after one delivery, and its sender is told if there
// is somebody who can be.
func TestForeignMessages(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	var ran atomic.Int32
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		ran.Add(1)
		return transporttest.Answer(m), nil
	}))
	ch := raw(t, s)
	reply := transport.ReplyQueuePrefix + "stranger"
	victim := "owtp.test.victim"
	for _, q := range []string{reply, victim} {
		remove(t, ch, q)
		if _, err := ch.QueueDeclare(q, false, false, true, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		m      amqp.Publishing
		status int32
	}{
		{"no type", amqp.Publishing{Body: []byte("x")}, 415},
		{"another type", amqp.Publishing{ContentType: "text/plain", Body: []byte("x")}, 415},
		{"encoded", amqp.Publishing{ContentType: "application/owtp", ContentEncoding: "gzip", Body: []byte("x")}, 415},
		{"empty", amqp.Publishing{ContentType: "application/owtp+json"}, 400},
		{"too large", amqp.Publishing{ContentType: "application/owtp", Body: make([]byte, cfg.MaxMessage+1)}, 413},
		{"odd properties", amqp.Publishing{ContentType: "x", Body: []byte("x"), Headers: amqp.Table{"a": amqp.Table{"b": []any{int32(1)}}}, Priority: 255, UserId: "owtp"}, 415},
	} {
		for _, to := range []string{reply, victim, ""} {
			c.m.CorrelationId, c.m.ReplyTo, c.m.Expiration = c.name, to, "60000"
			send(t, ch, cfg.ReadQueueName, c.m)
			if to == reply {
				d := take(t, ch, reply)
				if d.Type != "owtp.refusal" || d.Headers["status"] != c.status || d.CorrelationId != c.name {
					t.Errorf("%s: the sender is told type %q, headers %v, ID %q", c.name, d.Type, d.Headers, d.CorrelationId)
				}
			}
			if d := take(t, ch, cfg.ReadQueueName+".dead"); d.CorrelationId != c.name {
				t.Errorf("%s: the dead letter is %q", c.name, d.CorrelationId)
			}
		}
	}
	if n := length(t, ch, victim); n != 0 {
		t.Errorf("%d messages were sent to a queue that a stranger named and that is not for answers", n)
	}
	if ran.Load() != 0 {
		t.Error("a foreign message reached the handler")
	}
	x := open(t, cfg, nil)
	ask(t, x, "goes on")
}

// TestHandlerErrors: whatever a handler says against a message, it is not
// delivered again.
func TestHandlerErrors(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	var runs atomic.Int32
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		runs.Add(1)
		switch string(m.Data) {
		case "refuse":
			return transport.Message{}, &transport.Refusal{Status: 400, Reason: "no packet"}
		case "fail":
			return transport.Message{}, errors.New("secret")
		}
		panic("planted")
	}))
	x := open(t, cfg, nil)
	ch := raw(t, s)
	for i, c := range []struct {
		text   string
		status int
	}{{"refuse", 400}, {"fail", 500}, {"panic", 500}} {
		_, err := x.Exchange(t.Context(), message(c.text))
		wantStatus(t, err, c.status)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the caller learns %v", err)
		}
		if d := take(t, ch, cfg.ReadQueueName+".dead"); string(d.Body) != c.text {
			t.Errorf("the dead letter is %q", d.Body)
		}
		if got := int(runs.Load()); got != i+1 {
			t.Errorf("after %s the handler has run %d times", c.text, got)
		}
	}
}

// TestAnswerTo: the handler says where its answer goes, whatever the request did.
func TestAnswerTo(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	ch := raw(t, s)
	const elsewhere = "owtp.test.elsewhere"
	remove(t, ch, elsewhere)
	if _, err := ch.QueueDeclare(elsewhere, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		return transport.Message{Form: transport.JSON, Data: m.Data, To: elsewhere, Expires: 5 * time.Second}, nil
	}))
	send(t, ch, cfg.ReadQueueName, amqp.Publishing{ContentType: "application/owtp", CorrelationId: "id", ReplyTo: "amq.rabbitmq.reply-to.x", Expiration: "9000", Body: []byte("hello")})
	d := take(t, ch, elsewhere)
	if string(d.Body) != "hello" || d.ContentType != "application/owtp+json" || d.CorrelationId != "id" || d.Expiration != "5000" {
		t.Errorf("got %+v", d)
	}
	soon(t, "the request is acknowledged", func() bool { return length(t, ch, cfg.ReadQueueName) == 0 })
}

// TestAnswerToNoQueue: a name that AMQP cannot carry costs no connection.
func TestAnswerToNoQueue(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	l := open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		if m.ReplyTo == "" {
			return transport.Message{Form: transport.Binary, Data: m.Data, To: strings.Repeat("x", 256)}, nil
		}
		return transporttest.Answer(m), nil
	}))
	before := amqpt.Lanes(l)
	ch := raw(t, s)
	send(t, ch, cfg.ReadQueueName, amqp.Publishing{ContentType: "application/owtp", Body: []byte("x")})
	soon(t, "the request is acknowledged", func() bool { return length(t, ch, cfg.ReadQueueName) == 0 })
	ask(t, open(t, cfg, nil), "x")
	if amqpt.Lanes(l) != before {
		t.Error("the connection was lost")
	}
}

// TestCallerGone: an answer that nobody takes any more does not bring its
// request back, and an answer to it cannot end a call of the server's own.
func TestCallerGone(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	var runs atomic.Int32
	l := open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		runs.Add(1)
		return transporttest.Answer(m), nil
	}))
	ch := raw(t, s)
	const slow = "owtp.test.slow"
	remove(t, ch, slow)
	if _, err := ch.QueueDeclare(slow, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := l.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: slow})
		failed <- err
	}()
	d := take(t, ch, slow)
	// Whom the server calls sends it a request with the ID of that very call,
	// whose answer must come back.
	send(t, ch, cfg.ReadQueueName, amqp.Publishing{ContentType: "application/owtp", CorrelationId: d.CorrelationId,
		ReplyTo: transport.ReplyQueuePrefix + "gone", Expiration: "5000", Body: []byte("x")})
	soon(t, "the request is handled and acknowledged", func() bool { return runs.Load() == 1 && length(t, ch, cfg.ReadQueueName) == 0 })
	select {
	case err := <-failed:
		t.Fatalf("the server's own call ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	send(t, ch, l.Queues().Reply, amqp.Publishing{ContentType: "application/owtp", CorrelationId: d.CorrelationId, Body: []byte("y")})
	if err := within(t, "the server's own call ends", failed); err != nil {
		t.Error(err)
	}
}

// TestShare: two consumers of one queue share the work, and never more than
// MaxDeliveries are in each one's hands.
func TestShare(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	cfg.MaxDeliveries = 3
	var done [2]atomic.Int32
	for i := range done {
		var running atomic.Int32
		open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
			if n := running.Add(1); n > 3 {
				t.Errorf("%d requests in the handler's hands at one time", n)
			}
			defer running.Add(-1)
			done[i].Add(1)
			time.Sleep(5 * time.Millisecond)
			return transporttest.Answer(m), nil
		}))
	}
	x := open(t, cfg, nil)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { ask(t, x, "x") })
	}
	all.Wait()
	if a, b := done[0].Load(), done[1].Load(); a+b != 100 || a < 10 || b < 10 {
		t.Errorf("two consumers did %d and %d of 100", a, b)
	}
}

// TestShutdownBusy: what runs is finished and answered, what was prefetched from
// the shared queue goes back and reaches another consumer, and what is from the
// own queue is answered as late.
func TestShutdownBusy(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	cfg.MaxDeliveries = 2
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	l := open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		if m.Late {
			return message("late"), nil
		}
		entered <- struct{}{}
		<-proceed
		return message("first"), nil
	}))
	x := open(t, cfg, nil)
	answers := make(chan string, 20)
	const calls = 12
	for i := range calls {
		to := cfg.ReadQueueName
		if i%2 == 0 {
			to = l.Queues().Own // so that more is prefetched than may run
		}
		go func() {
			m, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: to})
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- string(m.Data)
		}()
	}
	for range 2 {
		within(t, "a handler runs", entered)
	}
	time.Sleep(100 * time.Millisecond) // the others are prefetched
	shut := make(chan error, 1)
	go func() { shut <- l.Shutdown(context.Background()) }()
	open(t, cfg, handle(func(context.Context, transport.Message) (transport.Message, error) { return message("second"), nil }))
	time.Sleep(100 * time.Millisecond)
	select {
	case err := <-shut:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(proceed)
	if err := within(t, "Shutdown returns", shut); err != nil {
		t.Error(err)
	}
	count := make(map[string]int)
	for range calls {
		count[within(t, "all are answered", answers)]++
	}
	if count["first"] != 2 || count["second"] < calls/2-2 || count["late"] < calls/2-2 || len(count) != 3 {
		t.Errorf("got answers %v", count)
	}
	if len(entered) > 0 {
		t.Errorf("%d handlers began after Shutdown", len(entered))
	}
	ask(t, l, "a call of its own goes on")
}

// TestCloseGivesBack: a request whose handler ends because of Close is another
// consumer's.
func TestCloseGivesBack(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	entered := make(chan struct{}, 1)
	l := open(t, cfg, handle(func(ctx context.Context, _ transport.Message) (transport.Message, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return transport.Message{}, fmt.Errorf("stopped: %w", ctx.Err())
	}))
	x := open(t, cfg, nil)
	got := make(chan transport.Message, 1)
	go func() { got <- ask(t, x, "x") }()
	within(t, "the handler runs", entered)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		return message(fmt.Sprint("redelivered: ", m.Redelivered)), nil
	}))
	if m := within(t, "the other answers", got); string(m.Data) != "redelivered: true" {
		t.Errorf("got %q", m.Data)
	}
}

// TestKilledConsumer kills a process while it handles a request: the broker gives
// the request to another, and says that it did.
func TestKilledConsumer(t *testing.T) {
	if dsn := os.Getenv("OWTP_CHILD"); dsn != "" {
		consumeForEver(t, &servers.Server{DSN: dsn, Addr: os.Getenv("OWTP_CHILD_ADDR")}, os.Getenv("OWTP_CHILD_QUEUE"))
	}
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	child := exec.Command(os.Args[0], "-test.run=^TestKilledConsumer$")
	child.Env = append(os.Environ(), "OWTP_CHILD="+s.DSN, "OWTP_CHILD_ADDR="+s.Addr, "OWTP_CHILD_QUEUE="+cfg.ReadQueueName)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	said := make(chan string, 2)
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := out.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	within(t, "the child listens", said)
	x := open(t, cfg, nil)
	got := make(chan transport.Message, 1)
	go func() { got <- ask(t, x, "x") }()
	within(t, "the child handles the request", said)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		return message(fmt.Sprint("redelivered: ", m.Redelivered)), nil
	}))
	if m := within(t, "the other answers", got); string(m.Data) != "redelivered: true" {
		t.Errorf("got %q", m.Data)
	}
}

func consumeForEver(t *testing.T, s *servers.Server, queue string) {
	_, err := amqpt.New().Open(t.Context(), config(s, queue), handle(func(ctx context.Context, _ transport.Message) (transport.Message, error) {
		fmt.Println("handling")
		select {}
	}))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening")
	time.Sleep(time.Hour)
}

// TestDeliveryLimit: a message that nobody survives ends in the dead letters.
func TestDeliveryLimit(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	_ = open(t, cfg, transporttest.Echo()).Close()
	ch := raw(t, s)
	send(t, ch, cfg.ReadQueueName, amqp.Publishing{ContentType: "application/owtp", Body: []byte("poison")})
	deliveries := 0
	for end := time.Now().Add(patience); time.Now().Before(end); {
		// A consumer that vanishes gives back what it had; so does this.
		d, ok, err := ch.Get(cfg.ReadQueueName, false)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if deliveries > 0 && length(t, ch, cfg.ReadQueueName+".dead") == 1 {
				break
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		deliveries++
		_ = d.Nack(false, true)
	}
	if deliveries != amqpt.DeliveryLimit+1 {
		t.Errorf("the message was delivered %d times, want the limit of %d and once more", deliveries, amqpt.DeliveryLimit)
	}
	if d := take(t, ch, cfg.ReadQueueName+".dead"); string(d.Body) != "poison" {
		t.Errorf("the dead letter is %q", d.Body)
	}
}

// TestBudget: large messages are refused while the node is receiving too much.
func TestBudget(t *testing.T) {
	cfg := place(t, servers.RabbitMQ(t))
	cfg.Receiving = transport.NewBudget(10_000)
	open(t, cfg, transporttest.Echo())
	x := open(t, cfg, nil)
	_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: make([]byte, 20_000)})
	wantStatus(t, err, 503)
	for range 3 { // what was taken is given back
		if _, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: make([]byte, 9_000)}); err != nil {
			t.Error(err)
		}
	}
}

// TestRemote: a handler is told of the broker's address.
func TestRemote(t *testing.T) {
	cfg := place(t, servers.RabbitMQ(t))
	remotes := make(chan transport.Remote, 1)
	l := open(t, cfg, transporttest.HandlerFuncs{Exchange: func(_ context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		remotes <- from
		return transporttest.Answer(m), nil
	}})
	x := open(t, cfg, nil)
	ask(t, x, "x")
	from := <-remotes
	if _, _, err := net.SplitHostPort(from.LocalAddr); err != nil || from.Addr != x.RemoteAddr() || "amqp://"+from.Addr != l.Addr().String() {
		t.Errorf("the remote is %+v", from)
	}
}
