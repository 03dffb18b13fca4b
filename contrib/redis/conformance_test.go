package redis_test

import (
	"context"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func TestConformance(t *testing.T) {
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, servers.Redis(t).DSN) }, sessiontest.Options{
		Config: func(t *testing.T) string { return servers.Redis(t).DSN },
		Connect: func(ctx context.Context, dsn string) (session.Provider, error) {
			return session.Open(ctx, "redis", &session.ManagerConfig{ProviderConfig: dsn})
		},
	})
}
