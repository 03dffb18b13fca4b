package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// TestPlans checks that no statement looks at more rows than it is about.
func TestPlans(t *testing.T) {
	s := servers.Postgres(t)
	p, err := Open(t.Context(), &session.ManagerConfig{ProviderConfig: s.DSN + "&table=plans"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pool, err := pgxpool.New(t.Context(), s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, text := range []string{
		"INSERT INTO plans SELECT sha256(n::text::bytea), 'x', 1, now() + n * interval '1 second' FROM generate_series(1, 20000) n", "ANALYZE plans",
	} {
		if _, err := pool.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	tab := newTable(pool, "plans", false)
	for _, test := range []struct {
		text, index string
		args        []any
	}{
		{tab.get, "plans_pkey", []any{[]byte("a")}},
		{tab.swap, "plans_pkey", []any{1, []byte("a"), []byte("b"), 1, 2}},
		{tab.touch, "plans_pkey", []any{1, []byte("a"), 1}},
		{tab.delete, "plans_pkey", []any{[]byte("a")}},
		{tab.remove, "plans_pkey", []any{[][]byte{[]byte("a")}, []int64{1}, []string{"2024-01-01"}}},
		{tab.page, "plans_pkey", []any{[]byte("a"), []byte("a"), 10}},
		{tab.bounded, "plans_pkey", []any{[]byte("a"), []byte("a"), 10, []byte("b")}},
		{tab.sweep, "plans_expires", []any{10}},
	} {
		rows, err := pool.Query(t.Context(), "EXPLAIN "+test.text, test.args...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", test.text, err)
		}
		plan := strings.Join(lines, "\n")
		if !strings.Contains(plan, test.index) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%.80s...: no use of %s:\n%s", test.text, test.index, plan)
		}
	}
}
