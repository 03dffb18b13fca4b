package postgres_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/contrib/postgres"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// TestParameters opens connections that are set up in unusual ways.
func TestParameters(t *testing.T) {
	s := servers.Postgres(t)
	for _, p := range [][2]string{
		{"default_query_exec_mode", "exec"}, {"default_query_exec_mode", "simple_protocol"},
		{"default_query_exec_mode", "cache_describe"}, {"timezone", "America/St_Johns"}, {"datestyle", "SQL, DMY"},
		{"intervalstyle", "iso_8601"}, {"bytea_output", "escape"}, {"standard_conforming_strings", "on"}, {"client_encoding", "UTF8"},
		{"enable_indexscan", "off"}, {"default_transaction_isolation", "serializable"}, {"pool_max_conns", "1"},
	} {
		t.Run(p[0]+"="+p[1], func(t *testing.T) { sqltest.Semantics(t, open(t, with(t, s.DSN, p[0], p[1]))) })
	}
	u, err := url.Parse(s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	dsn := fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=%s sslmode=disable table=%s",
		u.Hostname(), u.Port(), u.User.Username(), password, strings.Trim(u.Path, "/"), newTable())
	t.Run("keywords", func(t *testing.T) { sqltest.Semantics(t, open(t, dsn)) })
}

func TestNew(t *testing.T) {
	s := servers.Postgres(t)
	if _, err := postgres.New(t.Context(), nil, postgres.Options{}); err == nil {
		t.Error("New without a pool")
	}
	pool := database(t, s.DSN)
	if _, err := postgres.New(t.Context(), pool, postgres.Options{Table: `a"b`}); err == nil {
		t.Error("New with a table's name that has a quote")
	}
	p, err := postgres.New(t.Context(), pool, postgres.Options{Table: newTable()})
	if err != nil {
		t.Fatal(err)
	}
	if tr := p.Traits(); tr.Name != "postgres" || !tr.Shared || !tr.Durable || !tr.Lists || tr.MayEvict {
		t.Errorf("traits: %+v", tr)
	}
	p.Close()
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("Close has closed the program's own pool: %v", err)
	}
}

func TestPressure(t *testing.T) {
	s := servers.Postgres(t)
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			dsn := with(t, s.DSN, "table", newTable(), "default_transaction_isolation", level)
			sqltest.Pressure(t, open(t, dsn), open(t, dsn), open(t, dsn))
		})
	}
}

// TestFirstUse lets several processes open the same store for the first time.
func TestFirstUse(t *testing.T) {
	s := servers.Postgres(t)
	for range 3 {
		dsn := with(t, s.DSN, "table", newTable(), "pool_max_conns", "2")
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				p, err := session.Open(t.Context(), "postgres", &session.ManagerConfig{ProviderConfig: dsn})
				if err != nil {
					t.Errorf("Open: %v", err)
					return
				}
				p.Close()
			})
		}
		all.Wait()
	}
}

func TestLeastPrivilege(t *testing.T) {
	s := servers.Postgres(t)
	admin := database(t, s.DSN)
	table := newTable()
	role := "r_" + table
	const password = "pass/word@x:y?z"
	exec(t, admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", role, password),
		fmt.Sprintf("CREATE SCHEMA s_%s", table), fmt.Sprintf("GRANT USAGE ON SCHEMA s_%s TO %s", table, role))
	u, err := url.Parse(with(t, s.DSN, "table", table, "search_path", "s_"+table))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, password)
	secrets := []string{password, url.QueryEscape(password)}
	sqltest.Refused(t, "postgres", u.String(), secrets, "CREATE TABLE", table, "permission denied")

	text, err := postgres.Schema(table)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, admin, fmt.Sprintf("SET search_path = s_%s; %s; RESET search_path", table, text), fmt.Sprintf("GRANT SELECT, INSERT, UPDATE ON s_%s.%s TO %s", table, table, role))
	sqltest.Refused(t, "postgres", u.String(), secrets, "permission denied")
	exec(t, admin, fmt.Sprintf("GRANT DELETE ON s_%s.%s TO %s", table, table, role))
	sqltest.Semantics(t, open(t, u.String()))
	exec(t, admin, fmt.Sprintf("DROP SCHEMA s_%s CASCADE", table), "DROP ROLE "+role)
}

// TestRefused opens what is not there.
func TestRefused(t *testing.T) {
	s := servers.Postgres(t)
	const secret = "s3cr3t-p4ss"
	u, err := url.Parse(s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	right, _ := u.User.Password()
	u.User = url.UserPassword(u.User.Username(), secret)
	sqltest.Refused(t, "postgres", u.String(), []string{secret}, "password authentication failed")
	none, _ := url.Parse(s.DSN)
	none.Path = "/no_such_db"
	sqltest.Refused(t, "postgres", none.String(), []string{right}, "no_such_db")
	sqltest.Refused(t, "postgres", "postgres://owtp:"+secret+"@127.0.0.1:1/owtp?sslmode=disable", []string{secret}, "127.0.0.1:1", "refused")
	for dsn, word := range map[string]string{
		"": "empty",
		"postgres://owtp:" + secret + "%zz@h:1/owtp":                     "not shown",
		"postgres://owtp:x/" + secret + "@h:1/owtp":                      "not shown",
		"postgres://owtp:" + secret + "@h:port/owtp":                     "not shown",
		"postgres://owtp:" + secret + "@h/owtp?sslmode=" + secret:        "not shown",
		"postgres://owtp:" + secret + "@h/owtp?pool_max_conns=" + secret: "pool_max_conns",
		"postgres://owtp:" + secret + "@h/owtp?table=Robert'":            "table's name",
		"password=" + secret + " host":                                   "not shown",
		secret:                                                           "not shown",
	} {
		sqltest.Refused(t, "postgres", dsn, []string{secret}, word)
	}
	sqltest.Refused(t, "postgres", with(t, s.DSN, "no_such_parameter", "1"), []string{right}, "no_such_parameter")
}

// TestTables opens tables that are not the store's.
func TestTables(t *testing.T) {
	s := servers.Postgres(t)
	pool := database(t, s.DSN)
	right := "key bytea PRIMARY KEY, value bytea, version bigint, expires timestamptz"
	for _, test := range []struct{ statements, word string }{
		{"CREATE TABLE %[1]s (a int)", "not this store's"},
		{"CREATE TABLE %[1]s (a int); COMMENT ON TABLE %[1]s IS 'owtp session store, format 2'", "newer"},
		{"CREATE TABLE %[1]s (a int); COMMENT ON TABLE %[1]s IS 'owtp session store, format '", "not this store's"},
		{"CREATE TABLE %[1]s (a int); COMMENT ON TABLE %[1]s IS 'owtp session store, format 1'", "key"},
		{"CREATE UNLOGGED TABLE %[1]s (" + right + "); COMMENT ON TABLE %[1]s IS 'owtp session store, format 1'", "persistence"},
		{"CREATE VIEW %[1]s AS SELECT 1; COMMENT ON VIEW %[1]s IS 'owtp session store, format 1'", "no table"},
	} {
		table := newTable()
		exec(t, pool, fmt.Sprintf(test.statements, table))
		sqltest.Refused(t, "postgres", with(t, s.DSN, "table", table), []string{s.Password}, test.word)
	}
}

// TestForeignRows reads what this package has not written.
func TestForeignRows(t *testing.T) {
	s := servers.Postgres(t)
	pool := database(t, s.DSN)
	table := newTable()
	p := open(t, with(t, s.DSN, "table", table))
	exec(t, pool, "ALTER TABLE "+table+" ALTER value DROP NOT NULL, ALTER version DROP NOT NULL, ALTER expires DROP NOT NULL",
		"INSERT INTO "+table+" VALUES ('zero', 'x', 0, 'infinity'), ('huge', repeat('x', 9000000)::bytea, 1, 'infinity'),"+
			" ('none', 'x', NULL, 'infinity'), ('when', 'x', 1, NULL), ('early', 'x', 1, '4713-01-01 BC')")
	for _, key := range []string{"zero", "huge", "none", "when"} {
		if r, err := p.Get(t.Context(), key); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("Get(%q) = %.10q, %v; want an error", key, r.Value, err)
		}
	}
	if _, err := p.Get(t.Context(), "early"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get of what expired before everything: %v", err)
	}
	if _, err := p.List(t.Context(), "", "", 10); err == nil {
		t.Error("List of rows without a version is no error")
	}
	for _, key := range []string{"zero", "huge", "none", "when"} {
		if err := p.Put(t.Context(), key, []byte("mine"), time.Hour); err != nil {
			t.Errorf("Put over a foreign row: %v", err)
		}
		if r, err := p.Get(t.Context(), key); err != nil || string(r.Value) != "mine" {
			t.Errorf("Get(%q) = %q, %v", key, r.Value, err)
		}
	}
	exec(t, pool, "DROP TABLE "+table)
	if _, err := p.Get(t.Context(), "zero"); err == nil || errors.Is(err, session.ErrNotFound) || !strings.Contains(err.Error(), "open it again") {
		t.Errorf("Get without a table: %v", err)
	}
}

// TestSchemaIsDocumented: operators copy what stands in the README.
func TestSchemaIsDocumented(t *testing.T) {
	text, err := postgres.Schema("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../README.md", "../README.zh-CN.md"} {
		if doc, err := os.ReadFile(name); err != nil || !strings.Contains(string(doc), text) {
			t.Errorf("%s does not have the statements of Schema, %v:\n%s", name, err, text)
		}
	}
	if _, err := postgres.Schema("a;b"); err == nil {
		t.Error("Schema of a name that may not stand in a statement")
	}
}
