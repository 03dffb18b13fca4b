package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(replicaEnv); text != "" {
		if err := serve(text); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(servers.RunMain(m))
}

// The story is told to its end, with the Redis that it starts and with one that
// is given.
func TestCluster(t *testing.T) {
	given := servers.Redis(t).DSN // none installed: skipped, or failed in CI
	for name, url := range map[string]string{"its own Redis": "", "a Redis that is given": given} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("REDIS_URL", url)
			var out bytes.Buffer
			err := run(context.Background(), &out)
			t.Log(out.String())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), "none twice") {
				t.Error("it has no summary")
			}
		})
	}
}

// Without a Redis it says what to install.
func TestClusterWithoutRedis(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	t.Setenv("PATH", t.TempDir())
	err := run(context.Background(), new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "apt-get install redis-server") || !strings.Contains(err.Error(), "REDIS_URL=") {
		t.Errorf("it says %v", err)
	}
}
