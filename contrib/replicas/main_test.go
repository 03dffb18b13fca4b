// Package replicas_test proves that replicas of a node behave as one: three
// processes with one certificate over one real store, behind a plain balancer,
// and behind a broker, with stores of their own there too.
package replicas_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"

	_ "github.com/owtp-go/owtp/contrib/nats"
	_ "github.com/owtp-go/owtp/contrib/postgres"
	_ "github.com/owtp-go/owtp/contrib/redis"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(replicaEnv); text != "" {
		os.Exit(replica(text))
	}
	os.Exit(servers.RunMain(m))
}

// A backing is a store that replicas can share.
type backing struct {
	name  string // of the provider
	start func(t testing.TB) *servers.Server
}

var backings = []backing{
	{"redis", func(t testing.TB) *servers.Server { return servers.NewRedis(t, "--appendfsync", "always") }},
	{"postgres", func(t testing.TB) *servers.Server { return servers.NewPostgres(t) }},
}
