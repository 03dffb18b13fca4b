package mysql_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func BenchmarkStore(b *testing.B) {
	s := servers.MariaDB(b)
	db := database(b, s.DSN)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	table := newTable()
	exec(b, db, "CREATE TABLE "+table+" (name VARBINARY(255) PRIMARY KEY, value BLOB)")
	prepare := func(text string) *sql.Stmt {
		stmt, err := db.Prepare(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { stmt.Close() })
		return stmt
	}
	get := prepare("SELECT value FROM " + table + " WHERE name = ?")
	put := prepare("INSERT INTO " + table + " VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)")
	add := prepare("INSERT IGNORE INTO " + table + " VALUES (?, ?)")
	sessiontest.Benchmark(b, open(b, s.DSN), sessiontest.Bare{
		Get: func(ctx context.Context, key string) (value []byte, err error) {
			return value, get.QueryRowContext(ctx, []byte(key)).Scan(&value)
		},
		Put: func(ctx context.Context, key string, value []byte) error {
			_, err := put.ExecContext(ctx, []byte(key), value)
			return err
		},
		Add: func(ctx context.Context, key string, value []byte) error {
			_, err := add.ExecContext(ctx, []byte(key), value)
			return err
		},
	})
}
