package postgres_test

import (
	"os"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.RunMain(m)) }
