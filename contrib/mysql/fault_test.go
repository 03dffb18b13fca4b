package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

func TestOutage(t *testing.T) {
	s := servers.NewMariaDB(t)
	sqltest.Outage(t, s, open(t, s.DSN))
}

// TestPausedServer opens a store of a server that does not answer.
func TestPausedServer(t *testing.T) {
	s := servers.NewMariaDB(t)
	s.Pause(t)
	defer s.Resume(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	_, err := session.Open(ctx, "mysql", &session.ManagerConfig{ProviderConfig: s.DSN})
	if err == nil || strings.Contains(err.Error(), s.Password) || time.Since(begin) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestReplica makes the server one that only reads, and back.
func TestReplica(t *testing.T) {
	s := servers.NewMariaDB(t)
	admin := database(t, s.DSN)
	exec(t, admin, "CREATE USER 'plain'@'%' IDENTIFIED BY 'plain-password'", "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON owtp.* TO 'plain'@'%'")
	dsn := fmt.Sprintf("plain:plain-password@tcp(%s)/owtp", s.Addr)
	p := open(t, dsn)
	if err := p.Put(t.Context(), "a", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	exec(t, admin, "SET GLOBAL read_only = 1")
	sqltest.Refused(t, "mysql", dsn, []string{"plain-password"}, "only reads", "primary")
	err := p.Put(t.Context(), "a", []byte("2"), time.Hour)
	if err == nil || !strings.Contains(err.Error(), "only reads") || strings.Contains(err.Error(), "plain-password") {
		t.Errorf("Put on a server that only reads: %v", err)
	}
	if r, err := p.Get(t.Context(), "a"); err != nil || string(r.Value) != "1" {
		t.Errorf("Get on a server that only reads: %q, %v", r.Value, err)
	}
	exec(t, admin, "SET GLOBAL read_only = 0")
	if err := p.Put(t.Context(), "a", []byte("3"), time.Hour); err != nil {
		t.Errorf("Put on a server that writes again: %v", err)
	}
}

// TestServerLimits uses servers with unusual settings.
func TestServerLimits(t *testing.T) {
	small := servers.NewMariaDB(t, "--max-allowed-packet=1M", "--log-bin", "--binlog-format=STATEMENT", "--sql-mode=", "--autocommit=0")
	p := open(t, small.DSN)
	most := p.Traits().MaxValue
	if most < 900_000 || most > 1<<20 {
		t.Errorf("MaxValue is %d of a packet of 1 MiB", most)
	}
	value := make([]byte, most)
	if err := p.Put(t.Context(), strings.Repeat("k", session.MaxKeyLen), value, time.Hour); err != nil {
		t.Errorf("Put of the longest value: %v", err)
	}
	if r, err := p.Get(t.Context(), strings.Repeat("k", session.MaxKeyLen)); err != nil || len(r.Value) != most {
		t.Errorf("Get of the longest value: %d bytes, %v", len(r.Value), err)
	}
	if err := p.Put(t.Context(), "k", make([]byte, most+1), time.Hour); err == nil {
		t.Error("Put of more than the longest value is no error")
	}
	sqltest.Semantics(t, p)
	tiny := servers.NewMariaDB(t, "--max-allowed-packet=16K")
	sqltest.Refused(t, "mysql", tiny.DSN, []string{tiny.Password}, "max_allowed_packet")
}

func TestLostAnswer(t *testing.T) {
	s := servers.MariaDB(t)
	sqltest.LostAnswer(t, s.Addr, func(addr string) session.Provider {
		return open(t, with(sqltest.At(s.DSN, s.Addr, addr), "pool_max_conns=1"))
	})
}

// TestDeadlock makes the store the victim of one: it holds the row a and waits
// for b while another transaction, which has written more, does the opposite.
func TestDeadlock(t *testing.T) {
	s := servers.MariaDB(t)
	table := newTable()
	p := open(t, with(s.DSN, "table="+table))
	for _, key := range []string{"a", "b"} {
		if err := p.Put(t.Context(), key, nil, time.Microsecond); err != nil {
			t.Fatal(err)
		}
	}
	db := database(t, s.DSN)
	exec(t, db, "CREATE TABLE "+table+"_other (n INT PRIMARY KEY)")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	run := func(text string) {
		t.Helper()
		if _, err := tx.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	for n := range 30 {
		run(fmt.Sprintf("INSERT INTO %s_other VALUES (%d)", table, n))
	}
	run("SELECT * FROM " + table + " WHERE name = 'b' FOR UPDATE")
	before := deadlocks(t, db)
	swept := make(chan error, 1)
	go func() {
		n, err := p.Sweep(t.Context(), 10)
		if err == nil && n != 2 {
			err = fmt.Errorf("%d rows were swept, want 2", n)
		}
		swept <- err
	}()
	waiting := "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
	// The server looks anew only if nobody has asked for a tenth of a second.
	for n, end := 0, time.Now().Add(20*time.Second); n == 0; {
		time.Sleep(150 * time.Millisecond)
		if err := db.QueryRow(waiting).Scan(&n); err != nil || time.Now().After(end) {
			t.Fatalf("the store does not wait for the row: %v", err)
		}
	}
	run("UPDATE " + table + " SET expires = expires WHERE name = 'a'")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-swept; err != nil {
		t.Error(err)
	}
	if after := deadlocks(t, db); after == before {
		t.Error("there was no deadlock")
	}
}

func deadlocks(t *testing.T, db *sql.DB) (n string) {
	t.Helper()
	var name string
	if err := db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").Scan(&name, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
