package nats_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(killEnv) != "":
		runReplica()
	case os.Getenv(brokerEnv) != "":
		runBroker()
	default:
		os.Exit(servers.RunMain(m))
	}
}
