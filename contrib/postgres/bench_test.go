package postgres_test

import (
	"context"
	"testing"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func BenchmarkStore(b *testing.B) {
	s := servers.Postgres(b)
	pool := database(b, with(b, s.DSN, "pool_max_conns", "16"))
	table := newTable()
	exec(b, pool, "CREATE TABLE "+table+" (key bytea PRIMARY KEY, value bytea)")
	sessiontest.Benchmark(b, open(b, s.DSN), sessiontest.Bare{
		Get: func(ctx context.Context, key string) (value []byte, err error) {
			return value, pool.QueryRow(ctx, "SELECT value FROM "+table+" WHERE key = $1", []byte(key)).Scan(&value)
		},
		Put: func(ctx context.Context, key string, value []byte) error {
			_, err := pool.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value", []byte(key), value)
			return err
		},
		Add: func(ctx context.Context, key string, value []byte) error {
			_, err := pool.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, $2) ON CONFLICT DO NOTHING", []byte(key), value)
			return err
		},
	})
}
