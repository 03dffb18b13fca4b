//go:build unix

package nats_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/transport"
)

// clustered are two servers that know each other. Their lame-duck mode ends all
// connections soon: by default it waits for ten seconds first.
func clustered(t *testing.T) (first, second *servers.Server, p place) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	file := filepath.Join(t.TempDir(), "conf")
	conf := "authorization { user: a, password: s3cret }\nlame_duck_grace_period: 200ms\n"
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	routes := "nats-route://" + l.Addr().String()
	first = servers.NewNATS(t, "-c", file, "--cluster_name", "x", "--cluster", routes)
	second = servers.NewNATS(t, "-c", file, "--cluster_name", "x", "--cluster", "nats://127.0.0.1:-1", "--routes", routes)
	return first, second, place{url: "nats://" + first.Addr, account: "a", password: "s3cret"}
}

// TestLameDuck: a server that says that it is going to shut down, and does, under
// load, is left for another one of its cluster, which nobody has configured.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	first, second, p := clustered(t)
	cfg := p.config()
	c := &tally{handled: make(map[string]int)}
	e := listen(t, cfg, func(ctx context.Context, from transport.Remote, m transport.Message) (transport.Message, error) {
		time.Sleep(20 * time.Millisecond) // so that there is load until the end
		return c.handler(ctx, from, m)
	})
	x := dial(t, cfg)
	eventually(t, "the servers know each other", func() bool { return nats.Knows(x, second.Addr) && nats.Knows(e, second.Addr) })
	const total = 3000
	load(t, x, c, total, within(""), func(made func() int64) {
		inTime(t, time.Minute, "a part of the load", func() bool { return made() > total/3 })
		first.Signal(t, syscall.SIGUSR2)
		eventually(t, "both are connected to the other one", func() bool { return nats.Server(x) == second.Addr && nats.Server(e) == second.Addr })
	})
	c.check(t, total)
	mustEcho(t, x)
}
