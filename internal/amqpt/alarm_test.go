package amqpt_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// testOutOfDisk lets the broker's disk fall below its limit: calls end at their
// deadlines with the broker's reason and were not sent, and the answer of a handler
// that was at work is sent when there is room again, without another run.
func testOutOfDisk(t *testing.T, s *servers.Server) {
	cfg := place(t, s)
	entered, proceed := make(chan struct{}), make(chan struct{})
	var l load
	count := l.handler()
	open(t, cfg, transporttest.HandlerFuncs{Exchange: func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		if string(m.Data) == "at work" {
			close(entered)
			select {
			case <-proceed:
			case <-ctx.Done():
			}
		}
		return count.ServeExchange(ctx, from, m)
	}})
	x := open(t, cfg, nil)
	at := make(chan transport.Message, 1)
	go func() { at <- ask(t, x, "at work") }()
	within(t, "the handler runs", entered)

	s.RabbitMQCtl(t, "set_disk_free_limit", "1000000GB")
	healthy := func() { s.RabbitMQCtl(t, "set_disk_free_limit", "50MB") }
	defer func() {
		if t.Failed() {
			healthy()
		}
	}()
	soon(t, "a caller is told", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := x.Exchange(ctx, message("too late"))
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want that of the context", err)
		}
		return err != nil && errors.Is(err, transport.ErrNotSent) && strings.Contains(err.Error(), "blocked publishing (low on disk)")
	})
	close(proceed)
	select {
	case m := <-at:
		t.Errorf("an answer %q from a broker that has blocked publishing", m.Data)
	case <-time.After(100 * time.Millisecond):
	}
	healthy()
	if m := within(t, "the answer comes", at); string(m.Data) != "at work" {
		t.Errorf("the answer is %q", m.Data)
	}
	ask(t, x, "afterwards")
	for _, text := range []string{"at work", "afterwards"} {
		if n, ran := l.ran.Load(text); !ran || n.(*atomic.Int32).Load() != 1 {
			t.Errorf("%q has not run once", text)
		}
	}
	ch := raw(t, s)
	soon(t, "the queue is empty", func() bool { return length(t, ch, cfg.ReadQueueName) == 0 })
}

// testBlocked lets the broker run out of memory.
func testBlocked(t *testing.T, s *servers.Server, cfg transport.Config) {
	x := open(t, cfg, nil)
	s.RabbitMQCtl(t, "set_vm_memory_high_watermark", "0")
	soon(t, "a publisher learns that it is blocked", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := x.Exchange(ctx, message("x"))
		return err != nil && errors.Is(err, context.DeadlineExceeded) && errors.Is(err, transport.ErrNotSent) && strings.Contains(err.Error(), "blocked publishing")
	})
	// No more may wait than there is room for.
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range amqpt.MaxWaiting {
		waiting.Go(func() {
			for ctx.Err() == nil { // the one below may have had the last place for a moment
				_, _ = x.Exchange(ctx, message("x"))
				time.Sleep(time.Millisecond)
			}
		})
	}
	var last error
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, last = x.Exchange(ctx, message("x"))
		cancel()
		var refusal *transport.Refusal
		if errors.As(last, &refusal) && refusal.Status == 429 && errors.Is(last, transport.ErrNotSent) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait, and the next is told %v", amqpt.MaxWaiting, last)
		}
	}
	cancel()
	waiting.Wait()
	// One that waits is sent when the broker is well again, also over a new
	// connection.
	patient := make(chan error, 2)
	go func() {
		_, err := x.Exchange(t.Context(), message("x"))
		patient <- err
	}()
	second := open(t, cfg, nil)
	go func() {
		_, err := second.Exchange(t.Context(), message("x"))
		patient <- err
	}()
	select {
	case err := <-patient:
		t.Errorf("an exchange with a blocked broker: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	third := open(t, cfg, nil)
	closed := make(chan error, 1)
	go func() {
		_, err := third.Exchange(context.Background(), message("x"))
		closed <- err
	}()
	time.Sleep(100 * time.Millisecond)
	if err := third.Close(); err != nil {
		t.Error(err)
	}
	if err := within(t, "Exchange ends with Close", closed); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got error %v, want net.ErrClosed", err)
	}
	s.RabbitMQCtl(t, "set_vm_memory_high_watermark", "0.4")
	for range 2 {
		if err := within(t, "who waited is served", patient); err != nil {
			t.Error(err)
		}
	}
}
