package mysql_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/contrib/mysql"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// variants change what a statement could mean.
var variants = []string{
	"sql_mode=''", "sql_mode='ANSI,TRADITIONAL'", "sql_mode='NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION'",
	"time_zone='%2B09:00'", "time_zone='-12:00'", "clientFoundRows=true", "interpolateParams=true", "parseTime=true", "multiStatements=true",
	"collation=latin1_swedish_ci", "charset=gbk", "charset=binary", "compress=true", "autocommit=0",
}

// mariaVariants are those that MySQL does not know.
var mariaVariants = []string{"sql_mode='ORACLE'", "sql_mode='SIMULTANEOUS_ASSIGNMENT'", "sql_mode='EMPTY_STRING_IS_NULL'"}

func isMariaDB(t *testing.T, db *sql.DB) bool {
	t.Helper()
	var version string
	if err := db.QueryRow("SELECT VERSION()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(version, "MariaDB")
}

func TestVariables(t *testing.T) {
	s := servers.MariaDB(t)
	tests := variants
	if isMariaDB(t, database(t, s.DSN)) {
		tests = append(tests, mariaVariants...)
	}
	for _, v := range tests {
		t.Run(v, func(t *testing.T) { sqltest.Semantics(t, open(t, with(s.DSN, v))) })
		if v == "autocommit=0" || strings.Contains(v, "EMPTY_STRING_IS_NULL") {
			continue // an error of New's
		}
		t.Run("own "+v, func(t *testing.T) {
			p, err := mysql.New(t.Context(), database(t, with(s.DSN, v)), mysql.Options{})
			if err != nil {
				t.Fatal(err)
			}
			sqltest.Semantics(t, p)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestNew(t *testing.T) {
	s := servers.MariaDB(t)
	if _, err := mysql.New(t.Context(), nil, mysql.Options{}); err == nil {
		t.Error("New without a database")
	}
	db := database(t, s.DSN)
	if _, err := mysql.New(t.Context(), db, mysql.Options{Table: "a b"}); err == nil {
		t.Error("New with a table's name that has a blank")
	}
	off := database(t, with(s.DSN, "autocommit=0"))
	if _, err := mysql.New(t.Context(), off, mysql.Options{}); err == nil || !strings.Contains(err.Error(), "autocommit") {
		t.Errorf("New on connections that never commit: %v", err)
	}
	p, err := mysql.New(t.Context(), db, mysql.Options{Table: newTable()})
	if err != nil {
		t.Fatal(err)
	}
	if tr := p.Traits(); tr.Name != "mysql" || !tr.Shared || !tr.Durable || !tr.Lists || tr.MayEvict {
		t.Errorf("traits: %+v", tr)
	}
	p.Close()
	if err := db.Ping(); err != nil {
		t.Errorf("Close has closed the program's own database: %v", err)
	}
}

func TestPressure(t *testing.T) {
	s := servers.MariaDB(t)
	t.Run("read committed", func(t *testing.T) {
		dsn := with(s.DSN, "table="+newTable())
		sqltest.Pressure(t, open(t, dsn), open(t, dsn), open(t, dsn))
	})
	levels := []string{"REPEATABLE READ", "SERIALIZABLE"}
	for _, level := range levels {
		t.Run(strings.ToLower(level), func(t *testing.T) {
			variable := "tx_isolation"
			if !isMariaDB(t, database(t, s.DSN)) {
				variable = "transaction_isolation"
			}
			db := database(t, with(s.DSN, variable+"='"+strings.ReplaceAll(level, " ", "-")+"'"))
			db.SetMaxOpenConns(48)
			p, err := mysql.New(t.Context(), db, mysql.Options{Table: newTable()})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			sqltest.Pressure(t, p)
		})
	}
}

// TestFirstUse lets several processes open the same store for the first time.
func TestFirstUse(t *testing.T) {
	s := servers.MariaDB(t)
	for range 3 {
		dsn := with(s.DSN, "table="+newTable(), "pool_max_conns=2")
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				p, err := session.Open(t.Context(), "mysql", &session.ManagerConfig{ProviderConfig: dsn})
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
	s := servers.MariaDB(t)
	admin := database(t, s.DSN)
	table, user := newTable(), "u"+newTable()[5:]
	var name string
	if err := admin.QueryRow("SELECT DATABASE()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	const password = "pass/word@x:y?z"
	exec(t, admin, fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY '%s'", user, password))
	t.Cleanup(func() { admin.Exec("DROP USER '" + user + "'@'%'") })
	dsn := with(fmt.Sprintf("%s:%s@tcp(%s)/%s", user, password, s.Addr, name), "table="+table)
	sqltest.Refused(t, "mysql", dsn, []string{password}, "denied")

	// Rights on another table make the database visible.
	exec(t, admin, "CREATE TABLE "+table+"_other (a INT)", fmt.Sprintf("GRANT SELECT ON %s_other TO '%s'@'%%'", table, user))
	sqltest.Refused(t, "mysql", dsn, []string{password}, "CREATE TABLE", table, "denied")

	text, err := mysql.Schema(table)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, admin, text, fmt.Sprintf("GRANT SELECT, INSERT, UPDATE ON %s TO '%s'@'%%'", table, user))
	sqltest.Refused(t, "mysql", dsn, []string{password}, "DELETE", "denied")
	exec(t, admin, fmt.Sprintf("GRANT DELETE ON %s TO '%s'@'%%'", table, user))
	sqltest.Semantics(t, open(t, dsn))
}

// TestRefused opens what is not there.
func TestRefused(t *testing.T) {
	s := servers.MariaDB(t)
	const secret = "s3cr3t-p4ss"
	at := "@tcp(" + s.Addr + ")/owtp"
	sqltest.Refused(t, "mysql", "owtp:"+secret+at, []string{secret}, "Access denied")
	sqltest.Refused(t, "mysql", strings.Replace(s.DSN, ")/", ")/no_such_db", 1), []string{s.Password}, "no_such_db")
	sqltest.Refused(t, "mysql", "owtp:"+secret+"@tcp(127.0.0.1:1)/owtp", []string{secret}, "127.0.0.1:1", "refused")
	for dsn, word := range map[string]string{
		"":                              "empty",
		"owtp:" + secret + "@tcp(h:1)/": "database",
		"owtp:" + secret + "@tcp(h:1":   "slash",
		"owtp:x/" + secret + "%zz":      "not shown",
		"owtp:" + secret + "@tcp(h:1)/a?strict=true":                 "strict",
		"owtp:" + secret + "@tcp(h:1)/a?parseTime=" + secret:         "not shown",
		"owtp:" + secret + "@tcp(h:1)/a?timeout=" + secret:           "not shown",
		"owtp:" + secret + "@tcp(h:1)/a?tls=none-" + secret:          "not shown",
		"owtp:" + secret + "@tcp(h:1)/a?table=Robert'":               "table's name",
		"owtp:" + secret + "@tcp(h:1)/a?table=a`b":                   "table's name",
		"owtp:" + secret + "@tcp(h:1)/a?pool_max_conns=0":            "pool_max_conns",
		"owtp:" + secret + "@tcp(h:1)/a?pool_max_conn_idle_time=ten": "pool_max_conn_idle_time",
	} {
		sqltest.Refused(t, "mysql", dsn, []string{secret}, word)
	}
	sqltest.Refused(t, "mysql", with(s.DSN, "no_such_variable=1"), []string{s.Password}, "no_such_variable")
}

// TestTables opens tables that are not the store's.
func TestTables(t *testing.T) {
	s := servers.MariaDB(t)
	db := database(t, s.DSN)
	for _, test := range []struct{ statement, word string }{
		{"CREATE TABLE %s (a INT)", "not this store's"},
		{"CREATE TABLE %s (a INT) COMMENT 'owtp session store, format 2'", "newer"},
		{"CREATE TABLE %s (a INT) COMMENT 'owtp session store, format '", "not this store's"},
		{"CREATE TABLE %s (a INT) COMMENT 'owtp session store, format 1'", "value"},
		{"CREATE TABLE %s (name VARBINARY(100) PRIMARY KEY, value BLOB, version BIGINT UNSIGNED, expires BIGINT) ENGINE=MyISAM COMMENT 'owtp session store, format 1'", "InnoDB"},
		{"CREATE VIEW %s AS SELECT 1", "VIEW"},
	} {
		table := newTable()
		exec(t, db, fmt.Sprintf(test.statement, table))
		sqltest.Refused(t, "mysql", with(s.DSN, "table="+table), []string{s.Password}, test.word)
	}
}

// TestForeignRows reads what this package has not written.
func TestForeignRows(t *testing.T) {
	s := servers.MariaDB(t)
	db := database(t, s.DSN)
	table := newTable()
	p := open(t, with(s.DSN, "table="+table))
	exec(t, db, "ALTER TABLE "+table+" MODIFY value MEDIUMBLOB NULL, MODIFY version BIGINT UNSIGNED NULL, MODIFY expires BIGINT NULL",
		"INSERT INTO "+table+" VALUES ('zero', 'x', 0, 9223372036854775807), ('huge', REPEAT('x', 9000000), 1, 9223372036854775807),"+
			" ('none', 'x', NULL, 9223372036854775807), ('when', 'x', 1, NULL), ('early', 'x', 1, -9223372036854775808)")
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
	exec(t, db, "DROP TABLE "+table)
	if _, err := p.Get(t.Context(), "zero"); err == nil || errors.Is(err, session.ErrNotFound) || !strings.Contains(err.Error(), "open it again") {
		t.Errorf("Get without a table: %v", err)
	}
}

// TestSchemaIsDocumented: operators copy what stands in the README.
func TestSchemaIsDocumented(t *testing.T) {
	text, err := mysql.Schema("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../README.md", "../README.zh-CN.md"} {
		if doc, err := os.ReadFile(name); err != nil || !strings.Contains(string(doc), text) {
			t.Errorf("%s does not have the statements of Schema, %v:\n%s", name, err, text)
		}
	}
	if _, err := mysql.Schema("a;b"); err == nil {
		t.Error("Schema of a name that may not stand in a statement")
	}
}
