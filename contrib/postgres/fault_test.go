package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore/sqltest"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

func TestOutage(t *testing.T) {
	s := servers.NewPostgres(t)
	sqltest.Outage(t, s, open(t, s.DSN))
}

// TestPausedServer opens a store of a server that does not answer.
func TestPausedServer(t *testing.T) {
	s := servers.NewPostgres(t)
	s.Pause(t)
	defer s.Resume(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	_, err := session.Open(ctx, "postgres", &session.ManagerConfig{ProviderConfig: s.DSN})
	if err == nil || strings.Contains(err.Error(), s.Password) || time.Since(begin) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestReplica makes the server one in recovery, which only reads, and promotes it.
func TestReplica(t *testing.T) {
	s := servers.NewPostgres(t)
	if s.Dir == "" {
		t.Skip("the server's files are others'")
	}
	p := open(t, s.DSN)
	if err := p.Put(t.Context(), "a", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	if err := os.WriteFile(filepath.Join(s.Dir, "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	sqltest.Refused(t, "postgres", s.DSN, []string{s.Password}, "only reads", "recovery", "primary")
	// Connections to the server before are found out one by one.
	err := p.Put(t.Context(), "a", []byte("2"), time.Hour)
	for end := time.Now().Add(10 * time.Second); err != nil && !strings.Contains(err.Error(), "only reads") && time.Now().Before(end); {
		err = p.Put(t.Context(), "a", []byte("2"), time.Hour)
	}
	if err == nil || !strings.Contains(err.Error(), "only reads") || strings.Contains(err.Error(), s.Password) {
		t.Errorf("Put on a server that only reads: %v", err)
	}
	exec(t, database(t, s.DSN), "SELECT pg_promote()")
	if err := p.Put(t.Context(), "a", []byte("3"), time.Hour); err != nil {
		t.Errorf("Put on a server that was promoted: %v", err)
	}
	if r, err := p.Get(t.Context(), "a"); err != nil || string(r.Value) != "3" {
		t.Errorf("Get on a server that was promoted: %q, %v", r.Value, err)
	}
}

// TestReadOnly lets the server read only while connections are open.
func TestReadOnly(t *testing.T) {
	s := servers.NewPostgres(t)
	p := open(t, s.DSN)
	if err := p.Put(t.Context(), "a", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	admin := database(t, s.DSN)
	set := func(value string) {
		exec(t, admin, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "ALTER SYSTEM SET default_transaction_read_only = "+value, "SELECT pg_reload_conf()")
	}
	set("on")
	// Backends read the file soon, but when they like.
	var err error
	for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		err = p.Put(t.Context(), "a", []byte("2"), time.Hour)
	}
	if err == nil || !strings.Contains(err.Error(), "only reads") {
		t.Errorf("Put on a server that only reads: %v", err)
	}
	set("off")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = p.Put(t.Context(), "a", []byte("3"), time.Hour); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Put on a server that writes again: %v", err)
		}
	}
}

func TestLostAnswer(t *testing.T) {
	s := servers.Postgres(t)
	sqltest.LostAnswer(t, s.Addr, func(addr string) session.Provider {
		return open(t, with(t, sqltest.At(s.DSN, s.Addr, addr), "pool_max_conns", "1"))
	})
}

// TestDeadlock makes the store the victim of one, which is who has waited for
// longer: it holds the row a and waits for b while another transaction does the
// opposite.
func TestDeadlock(t *testing.T) {
	s := servers.Postgres(t)
	table := newTable()
	p := open(t, with(t, s.DSN, "table", table))
	for _, key := range []string{"a", "b"} {
		if err := p.Put(t.Context(), key, nil, time.Microsecond); err != nil {
			t.Fatal(err)
		}
	}
	pool := database(t, s.DSN)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	run := func(text string) {
		t.Helper()
		if _, err := tx.Exec(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	run("SET LOCAL deadlock_timeout = '1min'")
	run("SELECT * FROM " + table + " WHERE key = 'b' FOR UPDATE")
	listed := make(chan error, 1)
	go func() { // List removes what it finds expired
		_, err := p.List(t.Context(), "", "", 10)
		listed <- err
	}()
	for n, end := 0, time.Now().Add(20*time.Second); n == 0; {
		err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'").Scan(&n)
		if err != nil || time.Now().After(end) {
			t.Fatalf("the store does not wait for the row: %v", err)
		}
	}
	run("UPDATE " + table + " SET expires = expires WHERE key = 'a'")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-listed; err != nil {
		t.Error(err)
	}
	// The server counts them a little later.
	for n, end := 0, time.Now().Add(20*time.Second); n == 0; time.Sleep(50 * time.Millisecond) {
		err := pool.QueryRow(t.Context(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&n)
		if err != nil || time.Now().After(end) {
			t.Fatalf("there was no deadlock: %v", err)
		}
	}
}
