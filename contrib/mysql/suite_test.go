package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/contrib/mysql"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/sessiontest"
)

// with adds parameters to a DSN.
func with(dsn string, parameters ...string) string {
	for _, p := range parameters {
		if strings.Contains(dsn[strings.LastIndex(dsn, "/"):], "?") {
			dsn += "&" + p
		} else {
			dsn += "?" + p
		}
	}
	return dsn
}

func open(t testing.TB, dsn string) session.Provider {
	t.Helper()
	p, err := session.Open(t.Context(), "mysql", &session.ManagerConfig{ProviderConfig: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// database opens the server as a program of its own does.
func database(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func exec(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestConformance(t *testing.T) {
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, servers.MariaDB(t).DSN) }, sessiontest.Options{
		FakeClock: func(t *testing.T) (session.Provider, func(time.Duration)) {
			return fakeClock(t, servers.MariaDB(t).DSN)
		},
		Config: func(t *testing.T) string { return servers.MariaDB(t).DSN },
		Connect: func(ctx context.Context, dsn string) (session.Provider, error) {
			return session.Open(ctx, "mysql", &session.ManagerConfig{ProviderConfig: dsn})
		},
		Sessions: 2000, // each is read and written in a transaction of its own
	})
}

var tables struct {
	sync.Mutex
	n int
}

// newTable returns a name that no other test has.
func newTable() string {
	tables.Lock()
	defer tables.Unlock()
	tables.n++
	return fmt.Sprintf("test_%d_%d", time.Now().UnixNano(), tables.n)
}

// fakeClock opens a store with one connection, for which MariaDB's variable
// timestamp sets the time.
func fakeClock(t testing.TB, dsn string) (session.Provider, func(time.Duration)) {
	db := database(t, dsn)
	db.SetMaxOpenConns(1)
	now := time.Unix(1_700_000_000, 0)
	set := func() { exec(t, db, fmt.Sprintf("SET timestamp = %d.%06d", now.Unix(), now.Nanosecond()/1000)) }
	set()
	p, err := mysql.New(t.Context(), db, mysql.Options{Table: newTable()})
	if err != nil {
		t.Fatal(err)
	}
	return p, func(d time.Duration) {
		now = now.Add(d)
		set()
	}
}

func TestClockBack(t *testing.T) {
	sqltest.ClockBack(t, func(t testing.TB) (session.Provider, func(time.Duration)) {
		return fakeClock(t, servers.MariaDB(t).DSN)
	})
}
