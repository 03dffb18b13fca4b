package nats_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/contrib/internal/brokertest"
	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) {
	brokertest.Main()
	if os.Getenv(killEnv) != "" {
		runReplica()
	}
	os.Exit(servers.RunMain(m))
}
