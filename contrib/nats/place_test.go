package nats_test

import (
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/contrib/nats/broker"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// A place is a running server and an account that may do everything there.
type place struct {
	url, account, password string
}

// places are the servers that a test runs against: Debian's and the newest.
var places = []struct {
	name string
	at   func(testing.TB) place
}{{"Server", installed}, {"Embedded", embedded}}

// everywhere runs a test against each.
func everywhere(t *testing.T, test func(*testing.T, place)) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) { test(t, p.at(t)) })
	}
}

func installed(t testing.TB) place { return placeOf(t, servers.NATS(t)) }

func placeOf(t testing.TB, s *servers.Server) place {
	u, err := url.Parse(s.DSN)
	if err != nil {
		t.Fatal("the test server's URL cannot be read")
	}
	password, _ := u.User.Password()
	return place{url: "nats://" + u.Host, account: u.User.Username(), password: password}
}

func embedded(t testing.TB) place {
	return placeAt(brokertest.New(t, broker.Options{}))
}

func placeAt(b *brokertest.Broker) place {
	return place{url: "nats://" + b.Addr, account: b.Account, password: b.Password}
}

// embed starts an embedded broker in this process.
func embed(t testing.TB, tlsConfig *tls.Config, users ...broker.User) place {
	t.Helper()
	p := place{account: "owtp", password: rand.Text()}
	b, err := broker.Start(broker.Options{
		Users: append(users, broker.User{Name: p.account, Password: p.password}), StoreDir: t.TempDir(), TLS: tlsConfig,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	p.url = b.URL()
	return p
}

// config is that of a listener on a new queue of its own, and of who calls it.
func (p place) config() transport.Config {
	cfg := transporttest.Config(p.url)
	p.tune(&cfg, "test."+rand.Text())
	return cfg
}

func (p place) tune(cfg *transport.Config, queue string) {
	cfg.Account, cfg.Password, cfg.Name = p.account, p.password, "node1"
	cfg.ReadQueueName, cfg.WriteQueueName = queue, queue
	cfg.MaxDeliveries, cfg.MaxQueueLength, cfg.MaxQueueTime = 64, 1000, time.Minute
}

// logTo returns a logger that writes to the test's log.
func logTo(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
