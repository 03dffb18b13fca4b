package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// TestPlans checks that no statement looks at more rows than it is about.
func TestPlans(t *testing.T) {
	s := servers.MariaDB(t)
	p, err := Open(t.Context(), &session.ManagerConfig{ProviderConfig: s.DSN + "?table=plans"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	db, err := sql.Open("mysql", s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range 30 {
		values := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("(UUID(), 'x', 1, %d),", time.Now().UnixMicro()+1e12+int64(i)), 200), ",")
		if _, err := db.ExecContext(t.Context(), "INSERT INTO plans VALUES "+values); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Put(t.Context(), "a", nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "ANALYZE TABLE plans"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text, kind, key string
		args            []any
	}{
		{getText, "const", "PRIMARY", []any{[]byte("a")}},
		{fmt.Sprintf(pageText, "%s", " AND name < ?"), "range", "PRIMARY", []any{[]byte("a"), []byte("a1"), []byte("b"), 10}},
		{expireText, "range", "expires", []any{10}},
		{deleteText, "range", "PRIMARY", []any{[]byte("a")}},
		{removeManyText, "range", "PRIMARY", stamps()},
	} {
		kind, key := explainPlan(t, db, fmt.Sprintf(test.text, "plans"), test.args)
		if kind != test.kind || key != test.key {
			t.Errorf("%.80s...: %s by %q, want %s by %q", test.text, kind, key, test.kind, test.key)
		}
	}
}

func stamps() (args []any) {
	for i := range removeBatch {
		args = append(args, []byte(fmt.Sprint(i)), 1, 1)
	}
	return args
}

func explainPlan(t *testing.T, db *sql.DB, text string, args []any) (kind, key string) {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), "EXPLAIN "+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, _ := rows.Columns()
	values := make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for i, n := range names {
			switch n {
			case "type":
				kind = values[i].String
			case "key":
				key = values[i].String
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return kind, key
}
