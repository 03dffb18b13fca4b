package memcache_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/sessiontest"

	_ "github.com/owtp-go/owtp/contrib/memcache"
)

func TestMain(m *testing.M) { os.Exit(servers.RunMain(m)) }

// open opens a store by its name, as programs do.
func open(t testing.TB, config string) session.Provider {
	t.Helper()
	p, err := connect(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func connect(ctx context.Context, config string) (session.Provider, error) {
	return session.Open(ctx, "memcache", &session.ManagerConfig{ProviderConfig: config})
}

func TestConformance(t *testing.T) {
	config := func(t *testing.T) string { return servers.Memcached(t).DSN }
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, config(t)) }, sessiontest.Options{
		TTL: time.Second, Config: config, Connect: connect,
	})
}
