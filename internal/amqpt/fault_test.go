package amqpt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// A load calls without pause and counts what comes of it.
type load struct {
	stop                     chan struct{}
	tasks                    sync.WaitGroup
	answered, notSent, other atomic.Int64
	ran                      sync.Map // text of a call -> *atomic.Int32
	answeredOf               sync.Map // text -> true
	last                     atomic.Pointer[error]
}

// handler notes who ran how often.
func (l *load) handler() transport.Handler {
	return handle(func(_ context.Context, m transport.Message) (transport.Message, error) {
		n, _ := l.ran.LoadOrStore(string(m.Data), new(atomic.Int32))
		if n.(*atomic.Int32).Add(1) > 1 && !m.Redelivered {
			return message("a second delivery that is not marked"), nil
		}
		return transporttest.Answer(m), nil
	})
}

func startLoad(t *testing.T, l *load, x transport.Exchanger, callers int) {
	l.stop = make(chan struct{})
	for c := range callers {
		l.tasks.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.call(t, x, fmt.Sprintf("%d-%d-%d", c, n, rand.Uint64()))
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func (l *load) call(t *testing.T, x transport.Exchanger, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := x.Exchange(ctx, message(text))
	switch {
	case err == nil:
		l.answered.Add(1)
		l.answeredOf.Store(text, true)
		if string(m.Data) != text {
			t.Errorf("asked %q and got %q", text, m.Data)
		}
	case errors.Is(err, transport.ErrNotSent):
		l.notSent.Add(1)
		if n, ran := l.ran.Load(text); ran {
			t.Errorf("%q was not sent, says Exchange (%v), and ran %d times", text, err, n.(*atomic.Int32).Load())
		}
		time.Sleep(10 * time.Millisecond)
	default:
		l.other.Add(1)
		l.last.Store(&err)
		var refusal *transport.Refusal
		if errors.As(err, &refusal) {
			t.Errorf("%q was refused, with nobody who refuses: %v", text, err)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q waited to its deadline: %v", text, err)
		}
	}
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.tasks.Wait()
	l.answeredOf.Range(func(text, _ any) bool {
		if _, ran := l.ran.Load(text); !ran {
			t.Errorf("%q was answered and never ran", text)
		}
		return true
	})
	t.Logf("%d answered, %d not sent, %d unknown", l.answered.Load(), l.notSent.Load(), l.other.Load())
	if e := l.last.Load(); e != nil {
		t.Logf("one of them: %v", *e)
	}
}

// goesOn waits until calls succeed again.
func (l *load) goesOn(t *testing.T, after string) {
	t.Helper()
	n := l.answered.Load()
	soon(t, "calls succeed again after "+after, func() bool { return l.answered.Load() > n+20 })
}

// TestCut cuts the connections of both sides again and again.
func TestCut(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	var l load
	relays := [2]*servers.Relay{servers.NewRelay(t, s.Addr), servers.NewRelay(t, s.Addr)}
	server, caller := cfg, cfg
	server.Address, caller.Address = "amqp://"+relays[0].Addr(), "amqp://"+relays[1].Addr()
	e := open(t, server, l.handler())
	x := open(t, caller, nil)
	before := [2]transport.Queues{e.Queues(), x.Queues()}
	startLoad(t, &l, x, 16)
	l.goesOn(t, "the start")
	for range 3 {
		for i, r := range relays {
			r.Cut(false)
			l.goesOn(t, fmt.Sprint("a cut on side ", i))
		}
	}
	if after := [2]transport.Queues{e.Queues(), x.Queues()}; after != before {
		t.Errorf("the queues were %v and are %v", before, after)
	}
	if _, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("to the own queue"), To: e.Queues().Own}); err != nil {
		t.Error(err)
	}
	l.end(t)
}

// TestHandlerOutlivesConnection: a handler does not learn that its connection was
// lost, and what it answers goes out on the next one.
func TestHandlerOutlivesConnection(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	r := servers.NewRelay(t, s.Addr)
	server := cfg
	server.Address, server.MaxDeliveries = "amqp://"+r.Addr(), 1<<20
	entered, proceed := make(chan context.Context, 10), make(chan struct{})
	open(t, server, handle(func(ctx context.Context, m transport.Message) (transport.Message, error) {
		entered <- ctx
		if m.Redelivered {
			<-ctx.Done()
			return transport.Message{}, ctx.Err()
		}
		<-proceed
		return message("the first"), nil
	}))
	x := open(t, cfg, nil)
	got := make(chan transport.Message, 1)
	go func() { got <- ask(t, x, "x") }()
	first := within(t, "the handler runs", entered)
	r.Cut(false)
	again := within(t, "the request is delivered again", entered)
	if first.Err() != nil || again.Err() != nil {
		t.Error("a handler's context ended with its connection")
	}
	close(proceed)
	if m := within(t, "the caller has an answer", got); string(m.Data) != "the first" {
		t.Errorf("the answer is %q", m.Data)
	}
}

// TestCutAfterShutdown: a connection that is restored consumes no requests any
// more, and takes answers still.
func TestCutAfterShutdown(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	r := servers.NewRelay(t, s.Addr)
	server := cfg
	server.Address = "amqp://" + r.Addr()
	e := open(t, server, handle(func(context.Context, transport.Message) (transport.Message, error) { return message("shut down"), nil }))
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	r.Cut(false)
	open(t, cfg, transporttest.Echo())
	soon(t, "it calls again", func() bool {
		m, err := e.Exchange(t.Context(), message("x"))
		return err == nil && string(m.Data) == "x"
	})
	for range 4 {
		if m := ask(t, e, "x"); string(m.Data) != "x" {
			t.Errorf("the answer is %q", m.Data)
		}
	}
}

// TestDeletedQueue: a consumer whose queue an operator deletes makes it again.
func TestDeletedQueue(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	e, x := open(t, cfg, transporttest.Echo()), open(t, cfg, nil)
	ask(t, x, "x")
	remove(t, raw(t, s), cfg.ReadQueueName)
	soon(t, "calls succeed again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := x.Exchange(ctx, message("x"))
		return err == nil
	})
	soon(t, "the own queue is there again", func() bool {
		_, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: e.Queues().Own})
		return err == nil
	})
}

// TestStalled: a connection on which nothing comes is given up, and restored when
// the network is well again.
func TestStalled(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	open(t, cfg, transporttest.Echo())
	r := servers.NewRelay(t, s.Addr)
	caller := cfg
	caller.Address = "amqp://" + r.Addr()
	caller.HandshakeTimeout = time.Second
	x := openWith(t, amqpt.NewWithHeartbeat(2*time.Second), caller, nil)
	ask(t, x, "x")
	r.Stall(true)
	_, err := x.Exchange(t.Context(), message("x")) // has no deadline of its own
	if err == nil || errors.Is(err, transport.ErrNotSent) || !strings.Contains(err.Error(), "silent") {
		t.Errorf("got error %v, want that the broker has fallen silent", err)
	}
	_, err = x.Exchange(t.Context(), message("x"))
	if !errors.Is(err, transport.ErrNotSent) || !strings.Contains(err.Error(), "no connection to the broker") {
		t.Errorf("got error %v, want ErrNotSent: there is no connection", err)
	}
	r.Stall(false)
	soon(t, "it is restored", func() bool {
		_, err := x.Exchange(t.Context(), message("x"))
		return err == nil
	})
	r.Stall(true)
	closed := make(chan error, 1)
	go func() { closed <- x.Close() }()
	if err := within(t, "Close returns although nobody answers", closed); err != nil {
		t.Error(err)
	}
}

// TestBroker restarts, kills, pauses and fills the broker under load.
func TestBroker(t *testing.T) {
	s := servers.NewRabbitMQ(t)
	cfg := config(s, "owtp.test.broker")
	cfg.Logger = watched(t, cfg.Password)
	tr := amqpt.NewWithHeartbeat(2 * time.Second)
	// RabbitMQ 3.10 writes down seconds later which queues it has, and never serves
	// one again that a crash has overtaken: this one is made before the first restart.
	idle := config(s, "owtp.test.idle")
	_ = openWith(t, tr, idle, transporttest.Echo()).Close()
	var l load
	openWith(t, tr, cfg, l.handler())
	x := openWith(t, tr, cfg, nil)
	startLoad(t, &l, x, 16)
	l.goesOn(t, "the start")

	t.Run("restarted", func(t *testing.T) {
		s.Stop(t)
		_, err := x.Exchange(t.Context(), message("while it is away"))
		if !errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got error %v, want ErrNotSent", err)
		}
		s.Start(t)
		l.goesOn(t, "a restart")
	})
	t.Run("killed", func(t *testing.T) {
		const kept = 20 // requests that the broker has confirmed, and that nobody takes yet
		sender := openWith(t, tr, idle, nil)
		for i := range kept {
			m := message(fmt.Sprint("kept ", i))
			m.OneWay = true
			if _, err := sender.Exchange(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		s.Kill(t)
		s.Start(t)
		l.goesOn(t, "a crash")
		var after load
		soon(t, "the queue is served", func() bool { // the broker may still be reading its log
			e, err := tr.Open(t.Context(), idle, after.handler())
			if err == nil {
				t.Cleanup(func() { _ = e.Close() })
			}
			return err == nil
		})
		soon(t, "what the broker had confirmed is handled", func() bool {
			n := 0
			after.ran.Range(func(any, any) bool { n++; return true })
			return n == kept
		})
	})
	t.Run("paused", func(t *testing.T) {
		s.Pause(t)
		time.Sleep(5 * time.Second) // it is given up meanwhile
		s.Resume(t)
		l.goesOn(t, "a pause")
	})
	l.end(t)
	t.Run("blocked", func(t *testing.T) { testBlocked(t, s, cfg) })
	t.Run("out of disk", func(t *testing.T) { testOutOfDisk(t, s) })
	t.Run("gone", func(t *testing.T) {
		s.Kill(t)
		closed := make(chan error, 1)
		go func() { closed <- x.Close() }()
		if err := within(t, "Close returns", closed); err != nil {
			t.Error(err)
		}
		_, err := x.Exchange(t.Context(), message("x"))
		if !errors.Is(err, net.ErrClosed) || !errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got error %v, want net.ErrClosed and ErrNotSent", err)
		}
	})
}
