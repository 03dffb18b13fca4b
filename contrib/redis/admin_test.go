package redis_test

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// admin is a client that may do everything, to set up a server and to look at
// what the store did.
func admin(t testing.TB, s *servers.Server) *driver.Client {
	t.Helper()
	o, err := driver.ParseURL(s.DSN)
	must(t, err)
	o.Protocol, o.PipelinePoolSize = 2, -1
	c := driver.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bounded is a context for calls that must not take long.
func bounded(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until f no longer fails.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// tryOpen opens a store that may not open.
func tryOpen(t testing.TB, url string) (session.Provider, error) {
	t.Helper()
	p, err := session.Open(bounded(t, 10*time.Second), "redis", &session.ManagerConfig{ProviderConfig: url})
	if err == nil {
		t.Cleanup(func() { p.Close() })
	}
	return p, err
}

// calls returns how often the server has run a command.
func calls(t testing.TB, c *driver.Client, command string) int {
	t.Helper()
	stats, err := c.InfoMap(bounded(t, 5*time.Second), "commandstats").Result()
	must(t, err)
	var n int
	for _, section := range stats {
		if line, ok := section["cmdstat_"+command]; ok {
			for i := len("calls="); i < len(line) && line[i] != ','; i++ {
				n = n*10 + int(line[i]-'0')
			}
		}
	}
	return n
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
