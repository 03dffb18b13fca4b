package amqpt_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/amqpt"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// refused opens what cannot be opened, and wants the reason, the culprit and no
// secret in the error.
func refused(t *testing.T, cfg transport.Config, h transport.Handler, texts ...string) {
	t.Helper()
	e, err := amqpt.New().Open(t.Context(), cfg, h)
	if err == nil {
		_ = e.Close()
		t.Fatal("it was opened")
	}
	if e != nil {
		t.Error("Open returned an endpoint with its error")
	}
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got error %v, want ErrNotSent", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error %q does not contain %q", err, text)
		}
	}
	if cfg.Password != "" && strings.Contains(err.Error(), cfg.Password) {
		t.Errorf("the error contains the password: %q", err)
	}
}

func TestBadAddresses(t *testing.T) {
	for address, text := range map[string]string{
		"amqp://user:hunter2hunter2@127.0.0.1/": "must not contain a user or password",
		"amqp://hunter2hunter2@127.0.0.1":       "must not contain a user or password",
		"amqp://u:hunter2hunter2@[::1":          "not a URL",
		"amqp://127.0.0.1:port":                 "not a URL",
		"http://127.0.0.1":                      "begins with amqp:// or amqps://",
		"127.0.0.1:5672":                        "not a URL",
		"":                                      "begins with amqp:// or amqps://",
		"amqp://":                               "not an address of the form",
		"amqp:5672":                             "not an address of the form",
		"amqp://127.0.0.1/?heartbeat=1":         "not an address of the form",
		"amqp://127.0.0.1/#x":                   "not an address of the form",
		"amqp://127.0.0.1/a/b":                  "%2f",
	} {
		t.Run(address, func(t *testing.T) {
			cfg := transporttest.Config(address)
			cfg.Password = "hunter2hunter2"
			refused(t, cfg, nil, text)
		})
	}
}

// TestAddress: what an endpoint says of its address leads others to the same place.
func TestAddress(t *testing.T) {
	for text, want := range map[string][3]string{
		"amqp://h":                   {"h:5672", "/", "amqp://h:5672"},
		"amqp://h/":                  {"h:5672", "/", "amqp://h:5672"},
		"amqp://h:1/%2f":             {"h:1", "/", "amqp://h:1"},
		"amqp://h:1/%2F":             {"h:1", "/", "amqp://h:1"},
		"amqps://[::1]/wallets":      {"[::1]:5671", "wallets", "amqps://[::1]:5671/wallets"},
		"amqps://h:1/a%20b%2fc%252f": {"h:1", "a b/c%2f", "amqps://h:1/a%20b%2fc%252f"},
		"amqp://h/%C3%A4%3F":         {"h:5672", "ä?", "amqp://h:5672/%C3%A4%3F"},
	} {
		for range 2 {
			host, vhost, again, err := amqpt.ParseAddress(text)
			if got := [3]string{host, vhost, again}; err != nil || !strings.EqualFold(strings.Join(got[:], " "), strings.Join(want[:], " ")) {
				t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
			}
			text = again
		}
	}
}

func TestWrongNames(t *testing.T) {
	s := servers.RabbitMQ(t)
	long := strings.Repeat("x", 251)
	for name, change := range map[string]func(*transport.Config){
		"longer than 255": func(cfg *transport.Config) { cfg.ReadQueueName = long },
		"amq. for itself": func(cfg *transport.Config) { cfg.ReadQueueName = "amq.mine" },
		"than 255 bytes":  func(cfg *transport.Config) { cfg.Name = long },
	} {
		cfg := config(s, "owtp.test.names")
		change(&cfg)
		refused(t, cfg, transporttest.Echo(), name)
	}
	if _, err := amqpt.New().Listen(t.Context(), config(s, ""), transporttest.Echo()); err == nil || !strings.Contains(err.Error(), "queue to read") {
		t.Errorf("Listen without a queue: got error %v", err)
	}
	x := open(t, config(s, ""), nil)
	if _, err := x.Exchange(t.Context(), message("x")); !errors.Is(err, transport.ErrNotSent) || !strings.Contains(err.Error(), "no queue") {
		t.Errorf("Exchange without a queue: got error %v", err)
	}
	if _, err := x.Exchange(t.Context(), transport.Message{Form: transport.Binary, Data: []byte("x"), To: strings.Repeat("x", 256)}); !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("Exchange with a name too long: got error %v", err)
	}
	ask(t, open(t, place(t, s), transporttest.Echo()), "the broker is well")
}

// TestLogin: who may not come in learns why.
func TestLogin(t *testing.T) {
	s := servers.RabbitMQ(t)
	for _, c := range []struct {
		name   string
		change func(*transport.Config)
		texts  []string
	}{
		{"password", func(cfg *transport.Config) { cfg.Password = "wrongwrong" }, []string{"refused the login", `"owtp"`, "password is wrong"}},
		{"account", func(cfg *transport.Config) { cfg.Account = "nobody" }, []string{"refused the login", `"nobody"`}},
		{"guest", func(cfg *transport.Config) { cfg.Account, cfg.Password = "", "" }, []string{"refused the login", "no account was given"}},
		{"virtual host", func(cfg *transport.Config) { cfg.Address += "/missing" }, []string{`virtual host "missing"`, "create it", `"owtp"`}},
		{"exchange", func(cfg *transport.Config) { cfg.Exchange = "owtp.missing" }, []string{`exchange "owtp.missing"`, "does not exist", "create it"}},
		{"TLS to a port without", func(cfg *transport.Config) { cfg.Address = "amqps://" + s.Addr }, []string{"does not speak TLS", "amqp://"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // RabbitMQ takes three seconds to refuse a password
			cfg := config(s, "")
			c.change(&cfg)
			refused(t, cfg, nil, c.texts...)
		})
	}
}

// TestNoBroker dials what is no broker.
func TestNoBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := transporttest.Config("amqp://" + l.Addr().String())
	cfg.HandshakeTimeout = 100 * time.Millisecond
	refused(t, cfg, nil, l.Addr().String(), "did not answer in time") // silence
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := amqpt.New().Open(ctx, cfg, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: got error %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	cfg.HandshakeTimeout = 5 * time.Second
	refused(t, cfg, nil, l.Addr().String(), "does not speak AMQP")
	_ = l.Close()
	<-done
	refused(t, cfg, nil, l.Addr().String(), "refused")
}

// TestSilentAfterLogin: a broker that lets a node in and then says nothing, as one
// that has just crashed may, is not mistaken for a connection that was closed.
func TestSilentAfterLogin(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	cfg.Address = "amqp://" + silentAfter(t, s.Addr, "\x00\x0a\x00\x29") // connection.open-ok
	cfg.HandshakeTimeout = 500 * time.Millisecond
	for _, h := range []transport.Handler{transporttest.Echo(), nil} {
		refused(t, cfg, h, "did not answer in time", "deadline")
		if _, err := amqpt.New().Open(t.Context(), cfg, h); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v, want that its time was up", err)
		}
	}
}

// silentAfter is a way to a server from which nothing comes any more after these
// octets.
func silentAfter(t *testing.T, target, last string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	forward := func(to, from net.Conn, last string) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 64<<10)
		for silent := false; ; {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if !silent {
				_, _ = to.Write(buf[:n])
			}
			silent = silent || last != "" && strings.Contains(string(buf[:n]), last)
		}
	}
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { forward(client, server, last) })
			all.Go(func() { forward(server, client, "") })
		}
	})
	return l.Addr().String()
}

// TestOtherArguments: a queue that another configuration has made is named, with
// what to do.
func TestOtherArguments(t *testing.T) {
	s := servers.RabbitMQ(t)
	cfg := place(t, s)
	open(t, cfg, transporttest.Echo())
	other := cfg
	other.MaxQueueLength++
	refused(t, other, transporttest.Echo(), cfg.ReadQueueName, "other arguments", "x-max-length", "delete it")
	ask(t, open(t, cfg, nil), "the first goes on")
}
