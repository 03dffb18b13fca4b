package redis_test

import (
	"context"
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"

	_ "github.com/owtp-go/owtp/contrib/redis"
)

func TestMain(m *testing.M) { os.Exit(servers.RunMain(m)) }

// open opens a store by its name, as programs do.
func open(t testing.TB, url string) session.Provider {
	t.Helper()
	p, err := session.Open(context.Background(), "redis", &session.ManagerConfig{ProviderConfig: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}
