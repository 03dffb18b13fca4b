package owtp_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(holdEnv); spec != "" { // the other process of TestIdleConnections
		if err := hold(spec); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(servers.RunMain(m))
}
