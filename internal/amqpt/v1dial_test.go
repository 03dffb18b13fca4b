package amqpt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
)

// v1Place is the configuration of one end, with queues of the test's own that
// are gone before and after it.
func v1Place(t *testing.T, s *servers.Server, read, write string) transport.Config {
	t.Helper()
	cfg := place(t, s)
	cfg.Exchange = "amq.direct"
	cfg.ReadQueueName, cfg.WriteQueueName = cfg.ReadQueueName+read, cfg.WriteQueueName+write
	remove(t, raw(t, s), cfg.ReadQueueName)
	t.Cleanup(func() { remove(t, raw(t, s), cfg.ReadQueueName) })
	return cfg
}

func dialLegacy(t *testing.T, cfg transport.Config) transport.Conn {
	t.Helper()
	c, err := amqpt.NewLegacy().DialConn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close("") })
	return c
}

// Two ends with each other's queues are a connection: both ways, in order, and
// with what had come before.
func TestLegacyConn(t *testing.T) {
	t.Parallel()
	s := servers.RabbitMQ(t)
	a := dialLegacy(t, v1Place(t, s, ".a", ".b"))
	cfg := v1Place(t, s, ".b", ".a")
	b := dialLegacy(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, end := range [][2]transport.Conn{{a, b}, {b, a}} {
		for i := range 200 {
			body := fmt.Appendf(nil, "%d %s", i, bytes.Repeat([]byte("x"), i*100))
			if err := end[0].Send(ctx, transport.Message{Form: transport.JSON, Data: body}); err != nil {
				t.Fatal(err)
			}
			clear(body) // it is the sender's again
		}
		for i := range 200 {
			m, err := end[1].Recv(ctx)
			if err != nil || m.Redelivered || m.Form != transport.JSON || string(m.Data) != fmt.Sprintf("%d %s", i, strings.Repeat("x", i*100)) {
				t.Fatalf("message %d: %.30q %v %v", i, m.Data, m.Redelivered, err)
			}
		}
	}
	err := a.Send(ctx, transport.Message{Data: make([]byte, cfg.MaxMessage+1)})
	if r := (*transport.Refusal)(nil); !errors.As(err, &r) || r.Status != 413 || !errors.Is(err, transport.ErrNotSent) {
		t.Error(err)
	}
	// Close makes who waits return, and the queue stays with what comes.
	got := make(chan error, 1)
	go func() {
		_, err := b.Recv(ctx)
		got <- err
	}()
	b.Close("")
	b.Close("")
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := b.Send(ctx, transport.Message{Data: []byte("late")}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := a.Send(ctx, transport.Message{Data: []byte("meanwhile")}); err != nil {
		t.Fatal(err)
	}
	b = dialLegacy(t, cfg)
	if m, err := b.Recv(ctx); err != nil || string(m.Data) != "meanwhile" {
		t.Errorf("%q %v", m.Data, err)
	}
	short, end := context.WithTimeout(ctx, time.Millisecond)
	defer end()
	if _, err := b.Recv(short); !errors.Is(err, net.ErrClosed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A queue has one reader; one that nobody has made yet is said at once; and a
// broker that is gone ends the connection.
func TestLegacyConnEnds(t *testing.T) {
	t.Parallel()
	s := servers.RabbitMQ(t)
	relay := servers.NewRelay(t, s.Addr)
	cfg := v1Place(t, s, ".a", ".nobody")
	cfg.Address = "amqp://" + relay.Addr()
	a := dialLegacy(t, cfg)
	if c, err := amqpt.NewLegacy().DialConn(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "read by somebody else") || !errors.Is(err, transport.ErrNotSent) {
		t.Error(c, err)
	}
	relay.Cut(false)
	if _, err := a.Recv(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	var c transport.Conn
	for end := time.Now().Add(patience); c == nil; time.Sleep(10 * time.Millisecond) {
		var err error
		if c, err = amqpt.NewLegacy().DialConn(t.Context(), cfg); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer c.Close("")
	if err := c.Send(t.Context(), transport.Message{Data: []byte("to nobody")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recv(t.Context()); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "the peer makes it") {
		t.Error(err)
	}
	// What is no message of version 1 is dropped, and what is too large.
	cfg = v1Place(t, s, ".c", ".a")
	c2 := dialLegacy(t, cfg)
	ch := raw(t, s)
	for _, m := range []amqp.Publishing{
		{ContentType: "application/owtp", Body: []byte("x")}, {ContentType: "text/plain"}, {ContentType: "text/plain", ContentEncoding: "gzip", Body: []byte("x")},
		{ContentType: "text/plain", Body: make([]byte, cfg.MaxMessage+1)}, {ContentType: "text/plain", Body: []byte("right")},
	} {
		send(t, ch, cfg.ReadQueueName, m)
	}
	if m, err := c2.Recv(t.Context()); err != nil || string(m.Data) != "right" {
		t.Errorf("%.20q %v", m.Data, err)
	}
}
