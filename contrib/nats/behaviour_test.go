package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

const patience = 15 * time.Second

type exchangeFunc = func(context.Context, transport.Remote, transport.Message) (transport.Message, error)

func listen(t testing.TB, cfg transport.Config, f exchangeFunc) transport.Endpoint {
	t.Helper()
	e, err := nats.New().Open(t.Context(), cfg, transporttest.HandlerFuncs{Exchange: f})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func dial(t testing.TB, cfg transport.Config) transport.Exchanger {
	t.Helper()
	x, err := nats.New().DialExchange(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func echo(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
	return transporttest.Answer(m), nil
}

func message(text string) transport.Message {
	return transport.Message{Form: transport.Binary, Data: []byte(text)}
}

// send makes one exchange with time enough.
func send(t testing.TB, x transport.Exchanger, m transport.Message) (transport.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return x.Exchange(ctx, m)
}

func mustEcho(t testing.TB, x transport.Exchanger) {
	t.Helper()
	if m, err := send(t, x, message("still there?")); err != nil || string(m.Data) != "still there?" {
		t.Fatalf("got %q, %v", m.Data, err)
	}
}

func wantRefusal(t testing.TB, what string, err error, status int, notSent bool) {
	t.Helper()
	var refusal *transport.Refusal
	if !errors.As(err, &refusal) || refusal.Status != status || errors.Is(err, transport.ErrNotSent) != notSent {
		t.Errorf("%s: got error %v (not sent: %v), want a refusal with status %d (not sent: %v)",
			what, err, errors.Is(err, transport.ErrNotSent), status, notSent)
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	inTime(t, patience, what, is)
}

func inTime(t testing.TB, patience time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// raw is a connection of the bare client, which may do anything.
func raw(t testing.TB, p place) *natsgo.Conn {
	t.Helper()
	gone := make(chan struct{})
	nc, err := natsgo.Connect(strings.TrimSuffix(p.url, "?durable=true"), natsgo.UserInfo(p.account, p.password), natsgo.NoReconnect(),
		natsgo.ClosedHandler(func(*natsgo.Conn) { close(gone) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); <-gone })
	return nc
}

func TestNobodyServes(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, options := range []string{"", "?durable=true"} {
			at := p
			at.url += options
			start := time.Now()
			_, err := send(t, dial(t, at.config()), message("x"))
			wantRefusal(t, "nobody"+options, err, 430, true)
			if took := time.Since(start); took > patience/2 {
				t.Errorf("it took %v", took)
			}
		}
	})
}

// TestReplicasShare: each of many requests reaches one replica, and every replica
// gets some.
func TestReplicasShare(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, options := range []string{"", "?durable=true"} {
			t.Run("options"+options, func(t *testing.T) {
				p := p
				p.url += options
				cfg := p.config()
				cfg.MaxDeliveries = 4 // in a stream, one replica could take all
				const replicas, requests = 3, 300
				var got [replicas]atomic.Int32
				for i := range replicas {
					listen(t, cfg, func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
						got[i].Add(1)
						time.Sleep(time.Millisecond)
						return echo(ctx, from, m)
					})
				}
				x := dial(t, cfg)
				var all sync.WaitGroup
				for w := range 20 {
					all.Go(func() {
						for i := range requests / 20 {
							text := fmt.Sprint(w, i)
							if m, err := send(t, x, message(text)); err != nil || string(m.Data) != text {
								t.Errorf("got %q, %v", m.Data, err)
							}
						}
					})
				}
				all.Wait()
				sum := int32(0)
				for i := range got {
					sum += got[i].Load()
					if got[i].Load() < requests/replicas/10 {
						t.Errorf("replica %d got %d requests of %d", i, got[i].Load(), requests)
					}
				}
				if sum != requests {
					t.Errorf("%d requests were handled, %d sent", sum, requests)
				}
			})
		}
	})
}

// TestOwnQueue reaches one replica of several, and a caller that is called back.
func TestOwnQueue(t *testing.T) {
	p := installed(t)
	for _, options := range []string{"", "?durable=true"} {
		p := p
		p.url += options
		cfg := p.config()
		var here, there atomic.Int32
		a := listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			here.Add(1)
			return echo(ctx, r, m)
		})
		listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			there.Add(1)
			return echo(ctx, r, m)
		})
		back := cfg
		back.ReadQueueName, back.Name = "", "caller"
		caller := listen(t, back, func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
			if !strings.HasPrefix(m.To, transport.OwnQueuePrefix+"caller.") {
				t.Errorf("a request from the queue %q", m.To)
			}
			return message("called back"), nil
		})
		if q := caller.Queues(); q.Shared != "" || !strings.HasPrefix(q.Own, transport.OwnQueuePrefix+"caller.") || !strings.HasPrefix(q.Reply, transport.ReplyQueuePrefix+"caller.") {
			t.Errorf("its queues are %+v", q)
		}
		for range 20 {
			m := message("x")
			m.To = a.Queues().Own
			if _, err := send(t, caller, m); err != nil {
				t.Fatal(err)
			}
		}
		if here.Load() != 20 || there.Load() != 0 {
			t.Errorf("the replica got %d requests of 20, another one %d", here.Load(), there.Load())
		}
		m := message("x")
		m.To = caller.Queues().Own
		if m, err := send(t, a, m); err != nil || string(m.Data) != "called back" {
			t.Errorf("calling back: %q, %v", m.Data, err)
		}
	}
}

func TestOneWay(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, options := range []string{"", "?durable=true"} {
			at := p
			at.url += options
			cfg := at.config()
			got := make(chan transport.Message, 1)
			proceed := make(chan struct{})
			listen(t, cfg, func(_ context.Context, _ transport.Remote, m transport.Message) (transport.Message, error) {
				<-proceed
				got <- m
				return transport.Message{}, nil
			})
			m := message("x")
			m.Form, m.OneWay = transport.JSON, true
			answer, err := send(t, dial(t, cfg), m) // returns while the handler waits
			close(proceed)
			if err != nil || len(answer.Data) != 0 {
				t.Errorf("got %q, %v", answer.Data, err)
			}
			if m := <-got; !m.OneWay || m.Form != transport.JSON || string(m.Data) != "x" || m.To != cfg.ReadQueueName {
				t.Errorf("the handler got %+v", m)
			} else if m.Once != (options == "") {
				t.Errorf("%q: the handler was told %v of whether the message may come again", options, m.Once)
			}
		}
	})
}

// TestPayloadLimit: messages that the broker would not take are refused with the
// limit and both sizes, on either way.
func TestPayloadLimit(t *testing.T) {
	const limit = 64 << 10
	p := placeAt(brokertest.New(t, broker.Options{MaxPayload: limit}))
	cfg := p.config()
	listen(t, cfg, func(context.Context, transport.Remote, transport.Message) (transport.Message, error) {
		return message(strings.Repeat("x", limit)), nil
	})
	for _, options := range []string{"", "?durable=true"} {
		cfg := cfg
		cfg.Address += options
		x := dial(t, cfg)
		_, err := send(t, x, message(strings.Repeat("x", limit)))
		wantRefusal(t, "a request", err, 413, true)
		if err != nil && strings.Count(err.Error(), fmt.Sprint(limit)) != 2 {
			t.Errorf("the error does not name the limit and the size, %d: %v", limit, err)
		}
	}
	_, err := send(t, dial(t, cfg), message("x"))
	wantRefusal(t, "an answer", err, 413, false)
	if err != nil && !strings.Contains(err.Error(), fmt.Sprint(limit)) {
		t.Errorf("the error does not name the limit: %v", err)
	}
}

// TestWrongPassword: no secret is in an error or in the log.
func TestWrongPassword(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, c := range []struct{ account, password, want string }{
			{p.account, "wr0ng-secret", `account "` + p.account + `"`}, {"other", p.password, `account "other"`},
			{"", "t0ken-secret", "password is wrong"}, {"", "", "none was given"},
		} {
			cfg := p.config()
			cfg.Account, cfg.Password = c.account, c.password
			start := time.Now()
			_, err := nats.New().Open(t.Context(), cfg, transporttest.Echo())
			if !errors.Is(err, natsgo.ErrAuthorization) {
				t.Errorf("user %q: got error %v, want a refused authorization", c.account, err)
			}
			if !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("user %q: the error %q does not contain %q", c.account, err, c.want)
			}
			if c.password != "" && strings.Contains(fmt.Sprint(err), c.password) {
				t.Errorf("the error has the password in it: %v", err)
			}
			if took := time.Since(start); took > patience/2 {
				t.Errorf("it took %v", took)
			}
		}
	})
}

func TestBadConfig(t *testing.T) {
	p := installed(t)
	host := strings.TrimPrefix(p.url, "nats://")
	for _, c := range []struct {
		name   string
		change func(*transport.Config)
		want   string
	}{
		{"no scheme", func(c *transport.Config) { c.Address = host }, "nats://"},
		{"another scheme", func(c *transport.Config) { c.Address = "amqp://" + host }, "nats://"},
		{"a password in it", func(c *transport.Config) { c.Address = "nats://u:s3cret@" + host }, "Account"},
		{"no URL", func(c *transport.Config) { c.Address = "nats://u:s3cret@h:port\x7f" }, "nats://host:port"},
		{"a path", func(c *transport.Config) { c.Address += "/x" }, "host:port"},
		{"no host", func(c *transport.Config) { c.Address = "nats://" }, "host:port"},
		{"port 0", func(c *transport.Config) { c.Address = "nats://127.0.0.1:0" }, "port"},
		{"an unknown option", func(c *transport.Config) { c.Address += "?durabel=true" }, "unknown option"},
		{"durable or not", func(c *transport.Config) { c.Address += "?durable=perhaps" }, "neither true nor false"},
		{"an option twice", func(c *transport.Config) { c.Address += "?durable=true&durable=false" }, "twice"},
		{"no file of credentials", func(c *transport.Config) { c.Address += "?creds=/does/not/exist" }, "/does/not/exist"},
		{"no name", func(c *transport.Config) { c.Name = "" }, "name"},
		{"a name with a dot", func(c *transport.Config) { c.Name = "a.b" }, "a.b"},
		{"all queues", func(c *transport.Config) { c.ReadQueueName = ">" }, ">"},
		{"a pattern", func(c *transport.Config) { c.ReadQueueName = "a.*" }, "a.*"},
		{"a space", func(c *transport.Config) { c.ReadQueueName = "a b" }, "a b"},
		{"a line", func(c *transport.Config) { c.ReadQueueName = "a\r\nPUB x 0" }, `\r\n`},
		{"empty parts", func(c *transport.Config) { c.ReadQueueName = "a..b" }, "a..b"},
		{"the server's", func(c *transport.Config) { c.ReadQueueName = "$SYS.x" }, "$SYS"},
		{"somebody's reply queue", func(c *transport.Config) { c.ReadQueueName = "owtp.reply.x.y" }, "owtp.reply."},
		{"too long", func(c *transport.Config) { c.ReadQueueName = strings.Repeat("x", 201) }, "200"},
		{"a bad queue to write", func(c *transport.Config) { c.WriteQueueName = "a.>" }, "a.>"},
		{"no deliveries", func(c *transport.Config) { c.MaxDeliveries = 0 }, "MaxDeliveries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := p.config()
			c.change(&cfg)
			e, err := nats.New().Open(t.Context(), cfg, transporttest.Echo())
			if err == nil {
				e.Close()
				t.Fatal("it opens")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error is %q, it should speak of %q", err, c.want)
			}
		})
	}
	cfg := p.config()
	cfg.ReadQueueName = ""
	if _, err := nats.New().Listen(t.Context(), cfg, transporttest.Echo()); err == nil || !strings.Contains(err.Error(), "ReadQueueName") {
		t.Errorf("a listener without a queue: %v", err)
	}
	cfg = p.config()
	if _, err := nats.New().Open(t.Context(), cfg, nil); err == nil {
		t.Error("a queue to read without a handler is no error")
	}
	x := dial(t, p.config())
	for _, to := range []string{"a b", "a.*", ">", "a\r\nPUB x 0\r\n", "", "$JS.API.INFO"} {
		m := message("x")
		m.To = to
		if to == "" {
			cfg.ReadQueueName, cfg.WriteQueueName = "", ""
			x = dial(t, cfg)
		}
		if _, err := send(t, x, m); !errors.Is(err, transport.ErrNotSent) {
			t.Errorf("sending to %q: %v", to, err)
		}
	}
}

// TestUnreachable: nobody listens, or somebody who says nothing.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // connections wait in the kernel's queue
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	p := place{account: "a", password: "s3cret"}
	for _, c := range []struct {
		name string
		addr net.Addr
		want func(error) bool
	}{
		{"silence", l.Addr(), func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{"nobody", nobody.Addr(), func(err error) bool { return strings.Contains(err.Error(), "start the server") }},
	} {
		p.url = "nats://" + c.addr.String()
		cfg := p.config()
		cfg.HandshakeTimeout = 300 * time.Millisecond
		start := time.Now()
		_, err := nats.New().DialExchange(t.Context(), cfg)
		if err == nil || !c.want(err) || !errors.Is(err, transport.ErrNotSent) || !strings.Contains(err.Error(), c.addr.String()) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got error %v", c.name, err)
		}
		if took := time.Since(start); took > patience/2 {
			t.Errorf("%s: it took %v", c.name, took)
		}
	}
	// The program's own context ends it sooner.
	p.url = "nats://" + l.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	cfg := p.config()
	cfg.HandshakeTimeout = time.Hour
	if _, err := nats.New().DialExchange(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want that of the context", err)
	}
}

func TestTLS(t *testing.T) {
	server, client := transporttest.TLSConfigs(t)
	p := embed(t, server)
	if !strings.HasPrefix(p.url, "tls://") {
		t.Errorf("the broker's URL is %s", p.url)
	}
	cfg := p.config()
	cfg.ReadQueueName = ""
	if _, err := nats.New().Open(t.Context(), cfg, nil); err == nil {
		t.Error("a certificate that nobody has vouched for is believed")
	}
	cfg.TLS = client.Clone()
	cfg.TLS.ServerName = "other.example"
	if _, err := nats.New().Open(t.Context(), cfg, nil); err == nil {
		t.Error("a certificate for another name is believed")
	}
	cfg.TLS = client
	e, err := nats.New().Open(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	// A server without TLS must not be taken for one with.
	plain := installed(t)
	plain.url = strings.Replace(plain.url, "nats://", "tls://", 1)
	cfg = plain.config()
	cfg.TLS, cfg.ReadQueueName = client, ""
	if _, err := nats.New().Open(t.Context(), cfg, nil); !errors.Is(err, natsgo.ErrSecureConnWanted) {
		t.Errorf("a server without TLS: %v", err)
	}
}

// TestForeignRequests comes with what others than this package may publish.
func TestForeignRequests(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		cfg := p.config()
		var handled atomic.Int32
		e := listen(t, cfg, func(ctx context.Context, r transport.Remote, m transport.Message) (transport.Message, error) {
			handled.Add(1)
			return echo(ctx, r, m)
		})
		nc := raw(t, p)
		replies := make(chan *natsgo.Msg, 100)
		reply := transport.ReplyQueuePrefix + "test.r"
		for _, subject := range []string{reply + ".>", "elsewhere.>", "_INBOX.>"} {
			if _, err := nc.ChanSubscribe(subject, replies); err != nil {
				t.Fatal(err)
			}
		}
		const token = ".AAAAAAAAAAAAAAAA"
		publish := func(reply string, h natsgo.Header, data []byte) {
			t.Helper()
			if err := nc.PublishMsg(&natsgo.Msg{Subject: cfg.ReadQueueName, Reply: reply, Header: h, Data: data}); err != nil {
				t.Fatal(err)
			}
		}
		// Nobody answers to where an answer must not go, and no handler runs.
		for _, r := range []string{"elsewhere.x", "_INBOX.x", reply, reply + ".short", reply + ".AAAAAAAAAAAAAAA$", reply + token + "x", "owtp.reply..AAAAAAAAAAAAAAAA", "elsewhere." + token} {
			publish(r, nil, []byte("x"))
		}
		for _, c := range []struct {
			name   string
			header natsgo.Header
			data   []byte
			status string
		}{
			{"an empty message", nil, nil, "400"},
			{"an unknown type", natsgo.Header{"Content-Type": {"text/plain"}}, []byte("x"), "415"},
			{"two types", natsgo.Header{"Content-Type": {"application/owtp", "application/owtp+json"}}, []byte("x"), "415"},
			{"too long", nil, bytes.Repeat([]byte("x"), cfg.MaxMessage+1), "413"},
			{"fine", natsgo.Header{"Content-Type": {"application/owtp"}}, []byte("x"), ""},
		} {
			publish(reply+token, c.header, c.data)
			select {
			case m := <-replies:
				if got := m.Header.Get("Owtp-Status"); got != c.status || m.Subject != reply+token {
					t.Errorf("%s: status %q at %s, want %q", c.name, got, m.Subject, c.status)
				}
			case <-time.After(patience):
				t.Fatalf("%s: no answer", c.name)
			}
		}
		if n := handled.Load(); n != 1 {
			t.Errorf("%d requests were handled, 1 was fine", n)
		}
		// Answers that nobody asked for, of all kinds, disturb nothing.
		for _, subject := range []string{e.Queues().Reply + token, e.Queues().Reply + ".x", e.Queues().Own} {
			for _, h := range []natsgo.Header{nil, {"Status": {"503"}}, {"Owtp-Status": {"x"}}, {"Owtp-Status": {"200", "500"}}} {
				if err := nc.PublishMsg(&natsgo.Msg{Subject: subject, Reply: "elsewhere.y", Header: h}); err != nil {
					t.Fatal(err)
				}
			}
		}
		mustEcho(t, dial(t, cfg))
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-replies:
			t.Errorf("an answer at %s", m.Subject)
		default:
		}
	})
}

// TestHostileAnswers are what a peer may say instead of an answer.
func TestHostileAnswers(t *testing.T) {
	p := installed(t)
	cfg := p.config()
	nc := raw(t, p)
	var answer atomic.Pointer[natsgo.Msg]
	if _, err := nc.Subscribe(cfg.WriteQueueName, func(m *natsgo.Msg) {
		a := *answer.Load()
		a.Subject = m.Reply
		_ = nc.PublishMsg(&a)
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	x := dial(t, cfg)
	for _, c := range []struct {
		name   string
		msg    natsgo.Msg
		status int
	}{
		{"an unknown type", natsgo.Msg{Header: natsgo.Header{"Content-Type": {"text/html"}}, Data: []byte("x")}, 415},
		{"too long", natsgo.Msg{Data: bytes.Repeat([]byte("x"), cfg.MaxMessage+1)}, 413},
		{"a status that is none", natsgo.Msg{Header: natsgo.Header{"Owtp-Status": {"200"}}}, 415},
		{"a status of a thousand", natsgo.Msg{Header: natsgo.Header{"Owtp-Status": {"1000"}}}, 415},
		{"a refusal with tricks", natsgo.Msg{Header: natsgo.Header{"Owtp-Status": {"503"}}, Data: []byte("\x1b[31mred\nsecond line" + strings.Repeat("x", 1000))}, 503},
	} {
		answer.Store(&c.msg)
		_, err := send(t, x, message("x"))
		wantRefusal(t, c.name, err, c.status, false)
		if err != nil && (strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 400) {
			t.Errorf("%s: the error is %q", c.name, err)
		}
	}
}
