package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// durably is everywhere with addresses that ask for a stream.
func durably(t *testing.T, test func(*testing.T, place)) {
	everywhere(t, func(t *testing.T, p place) {
		p.url += "?durable=true"
		test(t, p)
	})
}

func streams(t testing.TB, p place) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(raw(t, p))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// streamOf finds what keeps the requests to a queue, or what was put aside.
func streamOf(t testing.TB, js jetstream.JetStream, subject string) jetstream.Stream {
	t.Helper()
	name, err := js.StreamNameBySubject(t.Context(), subject)
	if err != nil {
		t.Fatalf("no stream for %s: %v", subject, err)
	}
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func count(t testing.TB, s jetstream.Stream) uint64 {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

// prepare makes the stream of a queue and leaves nobody who serves it.
func prepare(t testing.TB, cfg transport.Config) {
	t.Helper()
	if err := listen(t, cfg, echo).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRequestsWait: what is sent while nobody serves the queue is answered by who
// comes, and is marked, since nobody can know what became of it before.
func TestRequestsWait(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		cfg := p.config()
		prepare(t, cfg)
		x := dial(t, cfg)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if m, err := send(t, x, message(fmt.Sprint(i))); err != nil || string(m.Data) != fmt.Sprint(i) {
					t.Errorf("got %q, %v", m.Data, err)
				}
			})
		}
		s := streamOf(t, streams(t, p), "owtp.durable."+cfg.ReadQueueName)
		eventually(t, "they are in the stream", func() bool { return count(t, s) == 20 })
		var marked atomic.Int32
		listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			if m.Redelivered && !m.Once {
				marked.Add(1)
			}
			return echo(ctx, r, m)
		})
		all.Wait()
		mustEcho(t, x)
		if n := marked.Load(); n != 20 {
			t.Errorf("%d of 20 that were there before were marked, or one that was not", n)
		}
		eventually(t, "the stream is empty", func() bool { return count(t, s) == 0 })
	})
}

// TestFullQueue: over its bound nothing is taken, and nothing is lost.
func TestFullQueue(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		cfg := p.config()
		cfg.MaxQueueLength = 5
		prepare(t, cfg)
		x := dial(t, cfg)
		m := message("x")
		m.OneWay = true
		for i := range 8 {
			_, err := send(t, x, m)
			if i < 5 && err != nil {
				t.Errorf("message %d of 5: %v", i, err)
			}
			if i >= 5 {
				wantRefusal(t, "one too many", err, 503, true)
			}
		}
		var handled atomic.Int32
		listen(t, cfg, func(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
			handled.Add(1)
			return transport.Message{}, nil
		})
		eventually(t, "those that were taken are handled", func() bool { return handled.Load() == 5 })
		eventually(t, "there is room again", func() bool { _, err := send(t, x, m); return err == nil })
	})
}

// TestPutAside: what cannot be handled goes to where people can look at it, its
// sender is told, and what follows it is handled.
func TestPutAside(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		cfg := p.config()
		prepare(t, cfg)
		js := streams(t, p)
		subject := "owtp.durable." + cfg.ReadQueueName
		// One request ends whoever handles it: five times.
		poison := dial(t, cfg)
		told := make(chan error, 1)
		go func() {
			_, err := poison.Exchange(t.Context(), message("poison"))
			told <- err
		}()
		requests := streamOf(t, js, subject)
		eventually(t, "it is in the stream", func() bool { return count(t, requests) == 1 })
		c, err := requests.Consumer(t.Context(), "owtp")
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			m, err := c.Next()
			if err == nil {
				err = m.Nak()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		reply := transport.ReplyQueuePrefix + "test.r.AAAAAAAAAAAAAAAA"
		for _, bad := range []natsgo.Msg{
			{Header: natsgo.Header{"Owtp-Reply": {reply}, "Content-Type": {"text/plain"}}, Data: []byte("bad type")},
			{Header: natsgo.Header{"Owtp-Reply": {reply}}, Data: bytes.Repeat([]byte("x"), cfg.MaxMessage+1)},
			{Header: natsgo.Header{"Owtp-Reply": {"elsewhere.x"}}, Data: []byte("bad reply")},
			{Header: natsgo.Header{"Owtp-Reply": {reply}}},
		} {
			bad.Subject = subject
			if _, err := js.PublishMsg(t.Context(), &bad); err != nil {
				t.Fatal(err)
			}
		}
		refused := make(chan *natsgo.Msg, 10)
		if _, err := raw(t, p).ChanSubscribe(reply, refused); err != nil {
			t.Fatal(err)
		}
		var handled atomic.Int32
		listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			handled.Add(1)
			return echo(ctx, r, m)
		})
		mustEcho(t, dial(t, cfg))
		dead := streamOf(t, js, "owtp.dead."+cfg.ReadQueueName)
		eventually(t, "they are put aside", func() bool { return count(t, dead) == 5 && count(t, requests) == 0 })
		wantRefusal(t, "the poisonous request", <-told, 504, false)
		if n := handled.Load(); n != 1 {
			t.Errorf("%d requests were handled, one was fine", n)
		}
		for seq := uint64(1); seq <= 5; seq++ {
			m, err := dead.GetMsg(t.Context(), seq)
			if err != nil || m.Header.Get("Owtp-Dead-Reason") == "" || m.Header.Get("Owtp-Dead-Deliveries") == "" {
				t.Errorf("put aside: %v, %v", m, err)
			}
		}
		for range 3 {
			select {
			case m := <-refused:
				if s := m.Header.Get("Owtp-Status"); s != "415" && s != "413" && s != "400" {
					t.Errorf("the sender was told %q", s)
				}
			case <-time.After(patience):
				t.Fatal("a sender was told nothing")
			}
		}
	})
}

// killEnv makes a test process a replica that takes requests and never answers.
const killEnv = "OWTP_TEST_REPLICA_PROCESS"

func runReplica() {
	parts := strings.Split(os.Getenv(killEnv), " ")
	p := place{url: parts[0], account: parts[1], password: parts[2]}
	cfg := p.config()
	cfg.ReadQueueName = parts[3]
	_, err := nats.New().Listen(context.Background(), cfg, transporttest.HandlerFuncs{
		Exchange: func(ctx context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			f, _ := os.OpenFile(parts[4], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			fmt.Fprintln(f, string(m.Data), m.Redelivered)
			f.Close()
			<-ctx.Done()
			return transport.Message{}, ctx.Err()
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// TestKilledReplica: what a replica had in its hands when it was killed goes to
// another one, marked, and is answered.
func TestKilledReplica(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		t.Parallel()
		cfg := p.config()
		file := filepath.Join(t.TempDir(), "got")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killEnv+"="+strings.Join([]string{p.url, p.account, p.password, cfg.ReadQueueName, file}, " "))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killed := false
		kill := func() {
			if !killed {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				killed = true
			}
		}
		defer kill()
		x := dial(t, cfg)
		eventually(t, "the replica serves", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := x.Exchange(ctx, message("first"))
			return !errors.Is(err, transport.ErrNotSent)
		})
		const requests = 10
		var all sync.WaitGroup
		for i := range requests {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if m, err := x.Exchange(ctx, message(fmt.Sprint("request ", i))); err != nil || string(m.Data) != fmt.Sprint("request ", i) {
					t.Errorf("got %q, %v", m.Data, err)
				}
			})
		}
		eventually(t, "it has them", func() bool {
			got, _ := os.ReadFile(file)
			return bytes.Count(got, []byte("request")) == requests
		})
		var again, fresh atomic.Int32
		listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			if m.Redelivered {
				again.Add(1)
			} else {
				fresh.Add(1)
			}
			return echo(ctx, r, m)
		})
		kill()
		mustEcho(t, x) // the other one serves at once, unless the server has not noticed yet
		all.Wait()
		if fresh.Load() > 1 || again.Load() < requests || fresh.Load()+again.Load() < requests+1 {
			t.Errorf("%d requests came marked and %d as new, want at least %d, at most 1, and %d in all", again.Load(), fresh.Load(), requests, requests+1)
		}
	})
}

// TestLongHandler: work that takes longer than the stream waits is not given to
// anybody else.
func TestLongHandler(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		t.Parallel()
		cfg := p.config()
		var handled atomic.Int32
		for range 2 {
			listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
				handled.Add(1)
				time.Sleep(nats.AckWait * 3 / 2)
				return echo(ctx, r, m)
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), nats.AckWait*4)
		defer cancel()
		if _, err := dial(t, cfg).Exchange(ctx, message("x")); err != nil {
			t.Error(err)
		}
		if n := handled.Load(); n != 1 {
			t.Errorf("it was handled %d times", n)
		}
	})
}

// TestOtherSettings: a stream that is there with other settings is an error that
// says which.
func TestOtherSettings(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		cfg := p.config()
		prepare(t, cfg)
		for _, c := range []struct {
			change func(*transport.Config)
			want   string
		}{
			{func(c *transport.Config) { c.MaxQueueLength++ }, "1001"},
			{func(c *transport.Config) { c.MaxQueueTime += time.Second }, "1m1s"},
		} {
			other := cfg
			c.change(&other)
			e, err := nats.New().Open(t.Context(), other, transporttest.Echo())
			if err == nil {
				e.Close()
				t.Fatal("it opens")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), cfg.ReadQueueName) {
				t.Errorf("the error is %q, it should speak of %s", err, c.want)
			}
		}
		// A stream of somebody else's that has our subject.
		third := p.config()
		if _, err := streams(t, p).CreateStream(t.Context(), jetstream.StreamConfig{Name: "X" + third.ReadQueueName[5:], Subjects: []string{"owtp.durable." + third.ReadQueueName}}); err != nil {
			t.Fatal(err)
		}
		if e, err := nats.New().Open(t.Context(), third, transporttest.Echo()); err == nil {
			e.Close()
			t.Error("two streams with one subject")
		}
	})
}

// TestReplicasBegin: any number of replicas may make the stream at one time.
func TestReplicasBegin(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		for range 3 {
			cfg := p.config()
			var all sync.WaitGroup
			for range 12 {
				all.Go(func() {
					e, err := nats.New().Open(t.Context(), cfg, transporttest.Echo())
					if err != nil {
						t.Error(err)
						return
					}
					t.Cleanup(func() { e.Close() })
				})
			}
			all.Wait()
			// An old server may lose the first delivery of a consumer that several
			// have made, for a while: see gatherTime.
			ctx, cancel := context.WithTimeout(t.Context(), 4*nats.AckWait)
			if _, err := dial(t, cfg).Exchange(ctx, message("x")); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})
}

// TestNoStreams: the server keeps none.
func TestNoStreams(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(`authorization { user: a, password: "s3cret" }`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := servers.NewNATS(t, "-c", file)
	p := place{url: "nats://" + s.Addr + "?durable=true", account: "a", password: "s3cret"}
	_, err := nats.New().Open(t.Context(), p.config(), transporttest.Echo())
	if !errors.Is(err, natsgo.ErrNoResponders) || !strings.Contains(err.Error(), "durable") {
		t.Errorf("got error %v", err)
	}
	_, err = send(t, dial(t, p.config()), message("x"))
	wantRefusal(t, "a caller", err, 430, true)
}

// TestStreamDeleted: the stream goes away and comes again by itself.
func TestStreamDeleted(t *testing.T) {
	durably(t, func(t *testing.T, p place) {
		cfg := p.config()
		listen(t, cfg, echo)
		x := dial(t, cfg)
		mustEcho(t, x)
		js := streams(t, p)
		if err := js.DeleteStream(t.Context(), streamOf(t, js, "owtp.durable."+cfg.ReadQueueName).CachedInfo().Config.Name); err != nil {
			t.Fatal(err)
		}
		inTime(t, 2*patience, "it is there again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := x.Exchange(ctx, message("x"))
			return err == nil
		})
	})
}
