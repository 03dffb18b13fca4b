package amqpt_test

import (
	"context"
	"errors"
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

// TestUnroutable calls a queue that is not there: the broker knows at once.
func TestUnroutable(t *testing.T) {
	cfg := place(t, servers.RabbitMQ(t))
	x := open(t, cfg, nil)
	for _, oneWay := range []bool{false, true} {
		m := message("x")
		m.OneWay = oneWay
		_, err := x.Exchange(t.Context(), m)
		wantStatus(t, err, 430)
		if !errors.Is(err, transport.ErrNotSent) || !strings.Contains(err.Error(), cfg.WriteQueueName) {
			t.Errorf("got error %v, want ErrNotSent with the queue's name", err)
		}
	}
	_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: "owtp.own.gone"})
	wantStatus(t, err, 430)
}

// TestOneWay: Exchange returns when the broker has the message, without a reply
// queue, and nobody answers.
func TestOneWay(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	got := make(chan transport.Message, 1)
	l := open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		got <- m
		return message("not for anybody"), nil
	}))
	x := open(t, cfg, nil)
	answer, err := x.Exchange(t.Context(), transport.Message{Form: transport.JSON, Data: []byte("{}"), OneWay: true, Expires: 1500 * time.Millisecond})
	if err != nil || answer.Data != nil {
		t.Fatalf("got %v, %v", answer, err)
	}
	m := within(t, "the message arrives", got)
	if m.Form != transport.JSON || string(m.Data) != "{}" || m.ReplyTo != "" || m.To != l.Queues().Shared || m.Expires != 1500*time.Millisecond || m.Redelivered {
		t.Errorf("got %+v", m)
	}
}

// TestQueues: a message says where it came from and where its answer goes, and
// an own queue reaches one endpoint of several.
func TestQueues(t *testing.T) {
	cfg := place(t, servers.RabbitMQ(t))
	where := handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		return message(m.To + " " + m.ReplyTo), nil
	})
	a, b := open(t, cfg, where), open(t, cfg, where)
	x := open(t, cfg, nil)
	for _, e := range []transport.Endpoint{a, b} {
		q := e.Queues()
		if q.Shared != cfg.ReadQueueName || !strings.HasPrefix(q.Own, transport.OwnQueuePrefix+"test.") ||
			strings.TrimPrefix(q.Own, transport.OwnQueuePrefix) != strings.TrimPrefix(q.Reply, transport.ReplyQueuePrefix) {
			t.Errorf("got queues %+v", q)
		}
		m, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: q.Own})
		if want := q.Own + " " + x.Queues().Reply; err != nil || string(m.Data) != want {
			t.Errorf("got %q, %v; want %q", m.Data, err, want)
		}
	}
	if q := x.Queues(); q.Shared != "" || q.Own != "" {
		t.Errorf("without a handler there are queues %+v", q)
	}
	ask(t, a, "a server calls too")
}

// TestFullQueue fills the shared queue while nobody consumes it.
func TestFullQueue(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	cfg.MaxQueueLength = 3
	_ = open(t, cfg, transporttest.Echo()).Close()
	x := open(t, cfg, nil)
	var full error
	for range 100 { // a quorum queue may take some more than its length
		m := message("x")
		m.OneWay = true
		if _, full = x.Exchange(t.Context(), m); full != nil {
			break
		}
	}
	wantStatus(t, full, 503)
	if errors.Is(full, transport.ErrNotSent) || !strings.Contains(full.Error(), "full") {
		t.Errorf("got error %v", full)
	}
	// With an answer too, at once.
	_, err := x.Exchange(t.Context(), message("x"))
	wantStatus(t, err, 503)
}

// TestExpired: what its caller does not wait for any more never reaches a handler.
func TestExpired(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	_ = open(t, cfg, transporttest.Echo()).Close()
	x := open(t, cfg, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := x.Exchange(ctx, message("by the caller's deadline")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v", err)
	}
	if _, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("by its own"), OneWay: true, Expires: 100 * time.Millisecond}); err != nil {
		t.Error(err)
	}
	time.Sleep(300 * time.Millisecond)
	got := make(chan transport.Message, 10)
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		got <- m
		return transporttest.Answer(m), nil
	}))
	ask(t, x, "fresh")
	if m := <-got; string(m.Data) != "fresh" {
		t.Errorf("an expired message came: %q", m.Data)
	}
	ch := raw(t, s)
	for range 2 {
		if d := take(t, ch, cfg.ReadQueueName+".dead"); !strings.HasPrefix(string(d.Body), "by ") {
			t.Errorf("the dead letter is %q", d.Body)
		}
	}
}

// TestStrangers writes everything but an answer to a reply queue.
func TestStrangers(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	ch := raw(t, s)
	open(t, cfg, handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		return message("first"), nil
	}))
	x := open(t, cfg, nil)
	// Listen to the broker, as its owner can, to learn the ID of a call.
	const spied = "owtp.test.spied"
	remove(t, ch, spied)
	if _, err := ch.QueueDeclare(spied, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		m, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: spied})
		if err == nil && string(m.Data) != "right" {
			err = errors.New("the answer is " + string(m.Data))
		}
		failed <- err
	}()
	id := take(t, ch, spied).CorrelationId
	reply := x.Queues().Reply
	ch2 := raw(t, s)
	before := amqpt.Strays(x)
	for _, m := range []amqp.Publishing{
		{Body: []byte("no ID")},
		{CorrelationId: "unknown", ContentType: "application/owtp", Body: []byte("unknown")},
		{CorrelationId: strings.Repeat("x", 255), Type: "owtp.refusal", Headers: amqp.Table{"status": int32(403)}},
		{CorrelationId: id, ContentType: "application/owtp", Body: []byte("right")},
		{CorrelationId: id, ContentType: "application/owtp", Body: []byte("twice")},
		{CorrelationId: id, Type: "owtp.refusal", Headers: amqp.Table{"status": int32(403)}, Body: []byte("late")},
	} {
		send(t, ch2, reply, m)
	}
	if err := within(t, "the call ends", failed); err != nil {
		t.Error(err)
	}
	soon(t, "the others are counted", func() bool { return amqpt.Strays(x)-before == 5 })
	ask(t, x, "goes on")
}

// TestLateAnswer: an answer that comes when its caller waits no more is dropped and
// counted, is not taken for the next one's, and brings its request back to nobody.
func TestLateAnswer(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	proceed, next, finish := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
	var runs atomic.Int32
	open(t, cfg, handle(func(ctx context.Context, m transport.Message) (transport.Message, error) {
		runs.Add(1)
		until := proceed
		if string(m.Data) == "next" {
			next <- struct{}{}
			until = finish
		}
		select {
		case <-until:
		case <-ctx.Done():
		}
		return transporttest.Answer(m), nil
	}))
	x := open(t, cfg, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := x.Exchange(ctx, message("late")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want that of the context, and that it may have been sent", err)
	}
	got := make(chan transport.Message, 1)
	go func() { got <- ask(t, x, "next") }()
	within(t, "the next one is handled", next)
	close(proceed)
	soon(t, "the late answer is counted", func() bool { return amqpt.Strays(x) == 1 })
	close(finish)
	if m := within(t, "the next one is answered", got); string(m.Data) != "next" {
		t.Errorf("the answer is %q", m.Data)
	}
	ch := raw(t, s)
	soon(t, "the queue is empty", func() bool { return length(t, ch, cfg.ReadQueueName) == 0 })
	if n, dead := runs.Load(), length(t, ch, cfg.ReadQueueName+".dead"); n != 2 || dead != 0 {
		t.Errorf("two requests were handled %d times, and %d are dead letters", n, dead)
	}
}

// TestOddAnswers: what comes with a call's ID and is no message is an error of
// that call.
func TestOddAnswers(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	x := open(t, cfg, nil)
	ch := raw(t, s)
	const queue = "owtp.test.odd"
	remove(t, ch, queue)
	if _, err := ch.QueueDeclare(queue, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		answer amqp.Publishing
		status int
		text   string
	}{
		{amqp.Publishing{Body: []byte("x")}, 415, "content type"},
		{amqp.Publishing{ContentType: "application/owtp; charset=utf-8", Body: []byte("x")}, 415, "content type"},
		{amqp.Publishing{ContentType: "application/owtp", ContentEncoding: "gzip", Body: []byte("x")}, 415, "encoding"},
		{amqp.Publishing{ContentType: "application/owtp"}, 400, "empty"},
		{amqp.Publishing{ContentType: "application/owtp", Body: make([]byte, cfg.MaxMessage+1)}, 413, "too large"},
		{amqp.Publishing{Type: "owtp.refusal", Headers: amqp.Table{"status": int32(429)}, Body: []byte("slow\ndown")}, 429, "slow"},
		{amqp.Publishing{Type: "owtp.refusal", Headers: amqp.Table{"status": int32(200)}, Body: []byte("fine")}, 502, "fine"},
		{amqp.Publishing{Type: "owtp.refusal", Headers: amqp.Table{"status": "403"}}, 502, ""},
		{amqp.Publishing{Type: "owtp.refusal"}, 502, ""},
		{amqp.Publishing{Type: "owtp.refusal", Headers: amqp.Table{"status": int32(403)}, Body: []byte(strings.Repeat("long \x00\xff", 1e5))}, 403, "long"},
	} {
		failed := make(chan error, 1)
		go func() {
			_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: queue})
			failed <- err
		}()
		c.answer.CorrelationId = take(t, ch, queue).CorrelationId
		send(t, ch, x.Queues().Reply, c.answer)
		err := within(t, "the call ends", failed)
		wantStatus(t, err, c.status)
		if !strings.Contains(err.Error(), c.text) || len(err.Error()) > 500 || errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got error %v", err)
		}
	}
}

// TestHugeAnswer is one that the broker itself keeps from a reply queue.
func TestHugeAnswer(t *testing.T) {
	s := servers.RabbitMQ(t)
	x := open(t, place(t, s), nil)
	ch := raw(t, s)
	confirmation, err := ch.PublishWithDeferredConfirm("", x.Queues().Reply, false, false, amqp.Publishing{Body: make([]byte, 64*(256<<10)+1)})
	if err != nil {
		t.Fatal(err)
	}
	if confirmation.Wait() {
		t.Error("the broker took a message that is larger than the whole queue may be")
	}
}

// TestUnconfirmed abandons so many messages on a lane that it is replaced, while
// one call still waits on it.
func TestUnconfirmed(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	_ = open(t, cfg, transporttest.Echo()).Close() // there is a queue
	r := servers.NewRelay(t, s.Addr)
	cfg.Address = "amqp://" + r.Addr()
	cfg.MaxQueueLength = 2 * amqpt.MaxAbandoned
	cfg.ReadQueueName = ""
	x := open(t, cfg, nil)
	before := amqpt.Lanes(x)
	r.Stall(true)
	waiting := make(chan error, 1)
	go func() {
		m := message("waits")
		m.OneWay = true
		_, err := x.Exchange(t.Context(), m)
		waiting <- err
	}()
	var all sync.WaitGroup
	var abandoned atomic.Int64
	for range 64 {
		all.Go(func() {
			for abandoned.Load() < amqpt.MaxAbandoned {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
				_, err := x.Exchange(ctx, message("x"))
				cancel()
				if err == nil {
					t.Error("an exchange over a stalled connection")
					return
				}
				if strings.Contains(err.Error(), "has not confirmed") {
					abandoned.Add(1)
				}
			}
		})
	}
	all.Wait()
	r.Stall(false)
	soon(t, "the lane is replaced", func() bool { return amqpt.Lanes(x) != before })
	if after := amqpt.Lanes(x); after[0] == before[0] || after[1] != before[1] {
		t.Errorf("lanes before %v, after %v", before, after)
	}
	err := within(t, "who waited on the old lane", waiting)
	var refusal *transport.Refusal
	if err != nil && !(errors.As(err, &refusal) && refusal.Status == 503) { // the queue may be full by now
		t.Error(err)
	}
	open(t, place(t, s), transporttest.Echo())
}
