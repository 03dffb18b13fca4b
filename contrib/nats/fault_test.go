package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
)

// A machine is a server that a test may pause, kill, stop and start again.
type machine interface {
	Pause(testing.TB)
	Resume(testing.TB)
	Kill(testing.TB)
	Stop(testing.TB)
	Start(testing.TB)
}

// machines are the servers that a test may break: Debian's and the newest.
func machines(t *testing.T, test func(t *testing.T, m machine, p place)) {
	t.Run("Server", func(t *testing.T) {
		t.Parallel()
		s := servers.NewNATS(t)
		test(t, s, placeOf(t, s))
	})
	t.Run("Embedded", func(t *testing.T) {
		t.Parallel()
		b := brokertest.New(t, broker.Options{})
		test(t, b, placeAt(b))
	})
}

// A tally counts what became of many exchanges, and how often each was handled.
type tally struct {
	mu      sync.Mutex
	handled map[string]int // requests that were not marked as redelivered

	completed, again, refused, unknown, late, wrong atomic.Int64
}

func (c *tally) handler(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
	if !m.Redelivered {
		c.mu.Lock()
		c.handled[string(m.Data)]++
		c.mu.Unlock()
	}
	return echo(ctx, r, m)
}

// exchange makes one, again as long as nothing was sent, and says how it ended.
// None may outlive its deadline.
func (c *tally) exchange(t testing.TB, x transport.Exchanger, text string, deadline time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	start := time.Now()
	m, err := x.Exchange(ctx, message(text))
	for errors.Is(err, transport.ErrNotSent) && ctx.Err() == nil {
		c.again.Add(1)
		c.mu.Lock()
		if c.handled[text] > 0 {
			t.Errorf("%s was handled, and its sender told that nothing was sent: %v", text, err)
		}
		c.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		m, err = x.Exchange(ctx, message(text))
	}
	if time.Since(start) > deadline+patience/3 {
		c.late.Add(1)
	}
	var refusal *transport.Refusal
	switch {
	case err == nil && string(m.Data) == text:
		c.completed.Add(1)
	case err == nil:
		c.wrong.Add(1)
	case errors.As(err, &refusal):
		c.refused.Add(1)
	default:
		c.unknown.Add(1)
	}
}

func (c *tally) check(t *testing.T, total int) {
	t.Helper()
	twice := 0
	for _, n := range c.handled {
		if n > 1 {
			twice++
		}
	}
	sum := c.completed.Load() + c.refused.Load() + c.unknown.Load()
	t.Logf("%d exchanges: %d completed, %d refused, %d outcome unknown; %d times nothing was sent", total, c.completed.Load(), c.refused.Load(), c.unknown.Load(), c.again.Load())
	if sum != int64(total) || c.wrong.Load() > 0 || c.late.Load() > 0 || twice > 0 {
		t.Errorf("%d of %d have ended, %d with another's answer, %d after their time; %d requests were handled twice without a mark", sum, total, c.wrong.Load(), c.late.Load(), twice)
	}
	if c.completed.Load() < int64(total)*9/10 {
		t.Errorf("only %d of %d completed", c.completed.Load(), total)
	}
}

// within is how long an exchange may take. What nothing keeps is lost with a
// connection; a stream gives it to somebody after a while.
func within(options string) time.Duration {
	if options == "" {
		return 2 * time.Second
	}
	return 20 * time.Second
}

// load makes so many exchanges from 32 goroutines while trouble goes on, which is
// told how many have been made.
func load(t *testing.T, x transport.Exchanger, c *tally, total int, deadline time.Duration, trouble func(made func() int64)) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(total); i = next.Add(1) {
				c.exchange(t, x, fmt.Sprint("request ", i), deadline)
			}
		})
	}
	trouble(func() int64 { return min(next.Load(), int64(total)) })
	all.Wait()
}

// TestServerRestarts kills the server, and stops it, under load.
func TestServerRestarts(t *testing.T) {
	machines(t, func(t *testing.T, m machine, p place) {
		for _, options := range []string{"", "?durable=true"} {
			t.Run("options"+options, func(t *testing.T) {
				p := p
				p.url += options
				cfg := p.config()
				c := &tally{handled: make(map[string]int)}
				listen(t, cfg, c.handler)
				listen(t, cfg, c.handler)
				x := dial(t, cfg)
				const total = 3000
				load(t, x, c, total, within(options), func(made func() int64) {
					for i, end := range []func(testing.TB){m.Kill, m.Stop} {
						inTime(t, time.Minute, "a part of the load", func() bool { return made() > int64(total*(i+1)/5) })
						end(t)
						m.Start(t)
						eventually(t, "the load goes on", func() bool {
							_, err := send(t, x, message(fmt.Sprint("after restart ", i)))
							return err == nil
						})
					}
				})
				c.check(t, total)
				mustEcho(t, x)
			})
		}
	})
}

// TestKilledServerKeeps: what a stream has taken is handled after a crash of its
// server, marked, since nobody can know what became of it before.
func TestKilledServerKeeps(t *testing.T) {
	machines(t, func(t *testing.T, m machine, p place) {
		p.url += "?durable=true"
		cfg := p.config()
		prepare(t, cfg)
		x := dial(t, cfg)
		const kept = 20
		for i := range kept {
			m := message(fmt.Sprint("kept ", i))
			m.OneWay = true
			if _, err := send(t, x, m); err != nil {
				t.Fatal(err)
			}
		}
		m.Kill(t)
		m.Start(t)
		got := make(chan string, 2*kept)
		listen(t, cfg, func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			if !m.Redelivered {
				t.Errorf("%q is not marked", m.Data)
			}
			got <- string(m.Data)
			return transport.Message{}, nil
		})
		seen := make(map[string]bool)
		for range kept {
			select {
			case text := <-got:
				seen[text] = true
			case <-time.After(patience):
				t.Fatalf("only %d of %d were handled", len(seen), kept)
			}
		}
		if len(seen) != kept {
			t.Errorf("%d of %d were handled, some of them twice", len(seen), kept)
		}
	})
}

// TestConnectionCut cuts the listener's connection, and the caller's, under load.
func TestConnectionCut(t *testing.T) {
	p := installed(t)
	for _, options := range []string{"", "?durable=true"} {
		t.Run("options"+options, func(t *testing.T) {
			target := strings.TrimPrefix(p.url, "nats://")
			serving, calling := servers.NewRelay(t, target), servers.NewRelay(t, target)
			cfg := p.config()
			c := &tally{handled: make(map[string]int)}
			cfg.Address = "nats://" + serving.Addr() + options
			listen(t, cfg, c.handler)
			cfg.Address = "nats://" + calling.Addr() + options
			x := dial(t, cfg)
			const total = 3000
			load(t, x, c, total, within(options), func(made func() int64) {
				for i, r := range []*servers.Relay{serving, calling, serving, calling} {
					inTime(t, time.Minute, "a part of the load", func() bool { return made() > int64(total*(i+1)/6) })
					r.Cut(false)
				}
			})
			c.check(t, total)
			mustEcho(t, x)
		})
	}
}

// TestNotSentWhileAway: while there is no connection an exchange fails at once and
// leaves nothing behind that goes out later.
func TestNotSentWhileAway(t *testing.T) {
	p := installed(t)
	r := servers.NewRelay(t, strings.TrimPrefix(p.url, "nats://"))
	cfg := p.config()
	var handled atomic.Int32
	listen(t, cfg, func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		handled.Add(1)
		return echo(ctx, from, m)
	})
	cfg.Address = "nats://" + r.Addr()
	x := dial(t, cfg)
	r.Cut(true)
	failed := 0
	eventually(t, "the connection is known to be lost", func() bool {
		start := time.Now()
		_, err := send(t, x, message("x"))
		if err == nil || time.Since(start) > patience/2 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if errors.Is(err, transport.ErrNotSent) {
			failed++
		}
		return failed == 10
	})
	r.Mend()
	eventually(t, "it comes back", func() bool {
		_, err := send(t, x, message("x"))
		return err == nil
	})
	if n := handled.Load(); n != 1 {
		t.Errorf("%d requests were handled, and 1 has been answered", n)
	}
}

// TestPausedServer: nothing waits for longer than it was given, and nothing is
// left when both sides close.
func TestPausedServer(t *testing.T) {
	machines(t, func(t *testing.T, m machine, p place) {
		cfg := p.config()
		cfg.HandshakeTimeout = time.Second
		e := listen(t, cfg, echo)
		x := dial(t, cfg)
		mustEcho(t, x)
		m.Pause(t)
		defer m.Resume(t)
		var all sync.WaitGroup
		large := transport.Message{Form: transport.Binary, Data: make([]byte, cfg.MaxMessage)}
		for range 100 { // more than all buffers on the way
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				start := time.Now()
				_, err := x.Exchange(ctx, large)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > patience/3 {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		}
		all.Wait()
		if _, err := send(t, x, message("x")); err == nil {
			t.Error("an answer from a paused server")
		}
		start := time.Now()
		for _, close := range []func() error{x.Close, e.Close} {
			if err := close(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > patience {
			t.Errorf("closing took %v", took)
		}
	})
}

// TestStalledNetwork lets everything disappear on its way and then come.
func TestStalledNetwork(t *testing.T) {
	p := installed(t)
	r := servers.NewRelay(t, strings.TrimPrefix(p.url, "nats://"))
	cfg := p.config()
	listen(t, cfg, echo)
	cfg.Address = "nats://" + r.Addr()
	x := dial(t, cfg)
	mustEcho(t, x)
	r.Stall(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := x.Exchange(ctx, message("x")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want that of the context, and that it may have been sent", err)
	}
	r.Stall(false)
	for range 3 { // the late answer is nobody's
		mustEcho(t, x)
	}
}

// TestTooBusy: what finds no room is refused at once, and what has room is not.
func TestTooBusy(t *testing.T) {
	p := installed(t)
	cfg := p.config()
	cfg.MaxDeliveries, cfg.MaxQueueLength = 2, 3
	proceed := make(chan struct{})
	var running, most atomic.Int32
	listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-proceed
		running.Add(-1)
		return echo(ctx, r, m)
	})
	x := dial(t, cfg)
	const total = 20
	var refused, answered atomic.Int32
	var all sync.WaitGroup
	for range total {
		all.Go(func() {
			switch _, err := send(t, x, message("x")); {
			case err == nil:
				answered.Add(1)
			default:
				wantRefusal(t, "one too many", err, 503, false)
				refused.Add(1)
			}
		})
	}
	eventually(t, "the rest is refused", func() bool { return refused.Load() == total-5 })
	close(proceed)
	all.Wait()
	if answered.Load() != 5 || most.Load() > 2 {
		t.Errorf("%d were answered, %d at one time; 2 may run and 3 wait", answered.Load(), most.Load())
	}
}

// TestBudget: large messages of all listeners together have a bound.
func TestBudget(t *testing.T) {
	p := installed(t)
	cfg := p.config()
	cfg.Receiving = transport.NewBudget(100 << 10)
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
		if len(m.Data) > 4096 {
			entered <- struct{}{}
			<-proceed
		}
		return echo(ctx, r, m)
	})
	x := dial(t, cfg)
	large := strings.Repeat("x", 60<<10)
	first := make(chan error, 1)
	go func() {
		_, err := send(t, x, message(large))
		first <- err
	}()
	<-entered
	_, err := send(t, x, message(large))
	wantRefusal(t, "a second large one", err, 503, false)
	mustEcho(t, x) // small ones do not count
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := send(t, x, message(large)); err != nil {
		t.Errorf("the budget was not given back: %v", err)
	}
}

// TestExpired: a request whose sender has stopped waiting reaches no handler.
func TestExpired(t *testing.T) {
	p := installed(t)
	cfg := p.config()
	cfg.MaxDeliveries = 1
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	var handled atomic.Int32
	listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
		handled.Add(1)
		entered <- struct{}{}
		<-proceed
		return echo(ctx, r, m)
	})
	x := dial(t, cfg)
	first := make(chan error, 1)
	go func() {
		_, err := send(t, x, message("first"))
		first <- err
	}()
	<-entered
	waits := message("waits")
	waits.Expires = time.Second
	second := make(chan error, 1)
	go func() {
		_, err := send(t, x, waits)
		second <- err
	}()
	time.Sleep(1200 * time.Millisecond) // for its time to pass
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
	wantRefusal(t, "one that has waited too long", <-second, 408, false)
	if n := handled.Load(); n != 1 {
		t.Errorf("%d requests were handled", n)
	}
}

// TestShutdownWhileBusy: what has come is handled, what comes is refused, and
// answers to our own requests still arrive.
func TestShutdownWhileBusy(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, options := range []string{"", "?durable=true"} {
			t.Run("options"+options, func(t *testing.T) {
				p := p
				p.url += options
				cfg := p.config()
				cfg.MaxDeliveries = 4
				var handled atomic.Int32
				e := listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
					handled.Add(1)
					time.Sleep(5 * time.Millisecond)
					return echo(ctx, r, m)
				})
				other := p.config()
				listen(t, other, echo)
				x := dial(t, cfg)
				var answered atomic.Int32
				var all sync.WaitGroup
				for i := range 40 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
						defer cancel()
						if _, err := x.Exchange(ctx, message(fmt.Sprint(i))); err == nil {
							answered.Add(1)
						}
					})
				}
				eventually(t, "it is busy", func() bool { return handled.Load() > 4 })
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := e.Shutdown(ctx); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
				at := handled.Load()
				m := message("x")
				m.To = other.ReadQueueName
				if _, err := send(t, e, m); err != nil {
					t.Errorf("an exchange after Shutdown: %v", err)
				}
				all.Wait()
				if n := handled.Load(); n != at || answered.Load() != n {
					t.Errorf("%d requests were handled before Shutdown returned and %d in all; %d were answered", at, n, answered.Load())
				}
			})
		}
	})
}

// TestCloseWhileBusy: handlers learn of it, callers get an answer or an error.
func TestCloseWhileBusy(t *testing.T) {
	p := installed(t)
	cfg := p.config()
	cfg.MaxDeliveries = 2
	entered := make(chan struct{}, 10)
	e := listen(t, cfg, func(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return transport.Message{}, &transport.Refusal{Status: 503, Reason: "told to stop"}
	})
	x := dial(t, cfg)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			_, err := send(t, x, message("x"))
			wantRefusal(t, "a request to who closes", err, 503, false)
		})
	}
	<-entered
	<-entered
	eventually(t, "the others wait", func() bool { return nats.Waiting(e) == 4 })
	var closing sync.WaitGroup
	for range 3 {
		closing.Go(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closing.Wait()
	all.Wait()
	if _, err := e.Exchange(t.Context(), message("x")); !errors.Is(err, net.ErrClosed) || !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("an exchange after Close: %v", err)
	}
}

// TestCloseWhileAway: an answer that waits for the broker does not hold up Close.
func TestCloseWhileAway(t *testing.T) {
	p := installed(t)
	r := servers.NewRelay(t, strings.TrimPrefix(p.url, "nats://"))
	cfg := p.config()
	entered, proceed := make(chan struct{}), make(chan struct{})
	serving := cfg
	serving.Address = "nats://" + r.Addr()
	e := listen(t, serving, func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		close(entered)
		<-proceed
		return echo(ctx, from, m)
	})
	x := dial(t, cfg)
	failed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := x.Exchange(ctx, message("x"))
		failed <- err
	}()
	<-entered
	r.Cut(true)
	eventually(t, "the connection is known to be lost", func() bool {
		_, err := e.Exchange(t.Context(), message("x"))
		return errors.Is(err, transport.ErrNotSent)
	})
	close(proceed)
	start := time.Now()
	if err := e.Close(); err != nil || time.Since(start) > patience/3 {
		t.Errorf("Close: %v after %v", err, time.Since(start))
	}
	if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller: %v", err)
	}
}

// TestAnswerAfterCut: the answer of a handler that was at work when its connection
// was lost is sent over the next one.
func TestAnswerAfterCut(t *testing.T) {
	p := installed(t)
	for _, options := range []string{"", "?durable=true"} {
		r := servers.NewRelay(t, strings.TrimPrefix(p.url, "nats://"))
		cfg := p.config()
		serving := cfg
		serving.Address = "nats://" + r.Addr() + options
		var handled atomic.Int32
		var e transport.Endpoint
		e = listen(t, serving, func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
			if handled.Add(1) == 1 {
				r.Cut(true)
				eventually(t, "the loss is known", func() bool {
					to := message("x")
					to.To = "nowhere"
					_, err := e.Exchange(t.Context(), to)
					var refusal *transport.Refusal
					return errors.Is(err, transport.ErrNotSent) && !errors.As(err, &refusal)
				})
				time.AfterFunc(50*time.Millisecond, r.Mend)
			}
			return echo(ctx, from, m)
		})
		cfg.Address += options
		if m, err := send(t, dial(t, cfg), message("x")); err != nil || string(m.Data) != "x" {
			t.Errorf("with %q: %q, %v", options, m.Data, err)
		}
		if n := handled.Load(); n != 1 {
			t.Errorf("with %q: it was handled %d times", options, n)
		}
	}
}

// TestAnswerJustAfterLoss: the client knows that the connection is gone, and the
// endpoint does not yet.
func TestAnswerJustAfterLoss(t *testing.T) {
	p := installed(t)
	for _, options := range []string{"", "?durable=true"} {
		cfg := p.config()
		cfg.Address += options
		var handled atomic.Int32
		var e transport.Endpoint
		e = listen(t, cfg, func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
			handled.Add(1)
			nats.HangUp(e)
			return echo(ctx, from, m)
		})
		x := dial(t, cfg)
		for i := range int32(20) {
			eventually(t, "it serves again", func() bool { return nats.Connected(e) })
			if m, err := send(t, x, message("x")); err != nil || string(m.Data) != "x" {
				t.Fatalf("with %q: %q, %v", options, m.Data, err)
			}
			if n := handled.Load(); n != i+1 {
				t.Fatalf("with %q: %d requests were handled %d times", options, i+1, n)
			}
		}
	}
}
