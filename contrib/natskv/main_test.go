package natskv_test

import (
	"context"
	"os"
	"testing"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"

	_ "github.com/owtp-go/owtp/contrib/natskv"
)

func TestMain(m *testing.M) {
	brokertest.Main()
	os.Exit(servers.RunMain(m))
}

func connect(ctx context.Context, url string) (session.Provider, error) {
	return session.Open(ctx, "nats", &session.ManagerConfig{ProviderConfig: url})
}

// open opens a store by its name, as programs do.
func open(t testing.TB, url string) session.Provider {
	t.Helper()
	p, err := connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}
