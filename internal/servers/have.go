package servers

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/owtp-go/owtp/internal/leakcheck"
)

// shared are the servers of this test process, by kind.
var shared struct {
	sync.Mutex
	byKind map[*kind]*sharedServer
}

type sharedServer struct {
	*Server
	err error // it was tried in vain
}

// Redis returns the Redis that the package's tests share.
func Redis(t testing.TB) *Server { t.Helper(); return share(t, &redis) }

// NewRedis starts a Redis of the test's own. The arguments are those of
// redis-server; they replace the defaults.
func NewRedis(t testing.TB, args ...string) *Server { t.Helper(); return own(t, &redis, args) }

// MariaDB returns the MariaDB that the package's tests share. The user may do
// everything.
func MariaDB(t testing.TB) *Server { t.Helper(); return share(t, &mariadb) }

// NewMariaDB starts a MariaDB of the test's own, with further arguments of
// mariadbd.
func NewMariaDB(t testing.TB, args ...string) *Server { t.Helper(); return own(t, &mariadb, args) }

// Postgres returns the PostgreSQL that the package's tests share. The user may do
// everything.
func Postgres(t testing.TB) *Server { t.Helper(); return share(t, &postgres) }

// NewPostgres starts a PostgreSQL of the test's own, with further arguments of
// postgres, as "-c", "name=value".
func NewPostgres(t testing.TB, args ...string) *Server { t.Helper(); return own(t, &postgres, args) }

// Memcached returns the memcached that the package's tests share.
func Memcached(t testing.TB) *Server { t.Helper(); return share(t, &memcached) }

// NewMemcached starts a memcached of the test's own, with further arguments.
func NewMemcached(t testing.TB, args ...string) *Server { t.Helper(); return own(t, &memcached, args) }

// NATS returns the nats-server that the package's tests share, with JetStream.
// The user may do everything.
func NATS(t testing.TB) *Server { t.Helper(); return share(t, &nats) }

// NewNATS starts a nats-server of the test's own, with further arguments of
// nats-server; "-c", "file" names a configuration of the test's instead of the
// usual one, with its users.
func NewNATS(t testing.TB, args ...string) *Server { t.Helper(); return own(t, &nats, args) }

// RunMain runs a package's tests, ends the servers that they share and then
// looks for goroutines that are left, as leakcheck.RunMain does.
func RunMain(m leakcheck.Runner) int { return leakcheck.RunMain(ending{m}) }

type ending struct{ leakcheck.Runner }

func (e ending) Run() int {
	defer endShared()
	return e.Runner.Run()
}

func endShared() {
	shared.Lock()
	defer shared.Unlock()
	for _, s := range shared.byKind {
		if s.Server != nil {
			s.end()
		}
	}
	shared.byKind = nil
}

func share(t testing.TB, k *kind) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	s := shared.byKind[k]
	if s == nil {
		s = new(sharedServer)
		switch dsn := os.Getenv(k.env); {
		case dsn != "":
			s.Server = others(k, dsn)
		case k.missing() != "":
			unavailable(t, k)
		default:
			s.Server, s.err = start(k)
		}
		if shared.byKind == nil {
			shared.byKind = make(map[*kind]*sharedServer)
		}
		shared.byKind[k] = s
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.Server
}

func own(t testing.TB, k *kind, args []string) *Server {
	t.Helper()
	if k.missing() == "" {
		s, err := start(k, args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.end)
		return s
	}
	if dsn, control := os.Getenv(k.env), os.Getenv(k.env+"_CONTROL"); dsn != "" && control != "" && len(args) == 0 {
		s := others(k, dsn)
		t.Cleanup(func() { s.restore(t) })
		return s
	}
	unavailable(t, k)
	return nil
}

// others returns a server that is not ours.
func others(k *kind, dsn string) *Server {
	return &Server{Addr: addrOf(dsn), DSN: dsn, kind: k, control: os.Getenv(k.env + "_CONTROL")}
}

// unavailable ends the test.
func unavailable(t testing.TB, k *kind) {
	t.Helper()
	const text = "no %s for this test: %q is not installed; %s, or let %s name one that runs (a test that breaks or configures it needs the programs, or %s_CONTROL)"
	if os.Getenv("CI") != "" {
		t.Fatalf(text, k.name, k.missing(), k.advice(), k.env, k.env)
	}
	t.Skipf(text, k.name, k.missing(), k.advice(), k.env, k.env)
}

// Start starts a server for a program that is no test, "rabbitmq" or another kind
// by its name; stop ends it. One that runs already and is named by its variable is
// taken instead.
func Start(name string) (s *Server, stop func(), err error) {
	for _, k := range []*kind{&redis, &mariadb, &postgres, &memcached, &nats, &rabbitmq} {
		switch {
		case k.name != name:
			continue
		case os.Getenv(k.env) != "":
			return others(k, os.Getenv(k.env)), func() {}, nil
		case k.missing() != "":
			return nil, nil, fmt.Errorf("no %s: %q is not installed; %s, or let %s name one that runs", name, k.missing(), k.advice(), k.env)
		}
		if s, err = start(k); err != nil {
			return nil, nil, err
		}
		return s, s.end, nil
	}
	return nil, nil, fmt.Errorf("there is no kind of server called %q", name)
}
