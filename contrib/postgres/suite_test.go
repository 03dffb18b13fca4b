package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/contrib/postgres"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/sessiontest"
)

// with sets parameters of a URL.
func with(t testing.TB, dsn string, parameters ...string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // as libpq has it
	return u.String()
}

func open(t testing.TB, dsn string) session.Provider {
	t.Helper()
	p, err := session.Open(t.Context(), "postgres", &session.ManagerConfig{ProviderConfig: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// database opens the server as a program of its own does.
func database(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func exec(t testing.TB, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := pool.Exec(t.Context(), s, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestConformance(t *testing.T) {
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, servers.Postgres(t).DSN) }, sessiontest.Options{
		FakeClock: func(t *testing.T) (session.Provider, func(time.Duration)) {
			return fakeClock(t, servers.Postgres(t).DSN)
		},
		Config: func(t *testing.T) string { return servers.Postgres(t).DSN },
		Connect: func(ctx context.Context, dsn string) (session.Provider, error) {
			return session.Open(ctx, "postgres", &session.ManagerConfig{ProviderConfig: dsn})
		},
		Sessions: 2000, // each is read and written in a transaction of its own
	})
}

var tables atomic.Int64

// newTable returns a name that no other test has.
func newTable() string { return fmt.Sprintf("test_%d_%d", time.Now().UnixNano(), tables.Add(1)) }

// fakeClock opens a store on a server whose statement_timestamp is a function of
// the test's, found first on the search_path.
func fakeClock(t testing.TB, dsn string) (session.Provider, func(time.Duration)) {
	schema := newTable()
	admin := database(t, dsn)
	exec(t, admin, "CREATE SCHEMA "+schema, "CREATE TABLE "+schema+".clock (now timestamptz)",
		"INSERT INTO "+schema+".clock VALUES ('2024-01-01 00:00:00Z')",
		"CREATE FUNCTION "+schema+".statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now FROM "+schema+".clock'")
	t.Cleanup(func() { admin.Exec(context.Background(), "DROP SCHEMA "+schema+" CASCADE") })
	pool := database(t, with(t, dsn, "search_path", schema+",pg_catalog"))
	p, err := postgres.New(t.Context(), pool, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	return p, func(d time.Duration) {
		now = now.Add(d)
		exec(t, admin, "UPDATE "+schema+".clock SET now = '"+now.Format("2006-01-02 15:04:05.000000")+"Z'")
	}
}

func TestClockBack(t *testing.T) {
	sqltest.ClockBack(t, func(t testing.TB) (session.Provider, func(time.Duration)) {
		return fakeClock(t, servers.Postgres(t).DSN)
	})
}
