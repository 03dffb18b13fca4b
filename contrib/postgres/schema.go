package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
	"github.com/owtp-go/owtp/session"
)

// Schema returns the statements that make a table, for operators whose programs
// may not. A name that [Options] does not allow is an error.
//
// The columns: the key, the value, a version that is drawn with each value, and
// when the record expires (never: infinity).
func Schema(table string) (string, error) {
	o := Options{Table: table}
	if err := o.check(); err != nil {
		return "", err
	}
	return fmt.Sprintf(schema, o.Table, sqlstore.Format), nil
}

const schema = `CREATE TABLE IF NOT EXISTS "%[1]s" (
  key bytea NOT NULL PRIMARY KEY,
  value bytea NOT NULL,
  version bigint NOT NULL,
  expires timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS "%[1]s_expires" ON "%[1]s" (expires);
COMMENT ON TABLE "%[1]s" IS '%[2]s';`

// Statements that make tables take turns: two CREATE TABLE IF NOT EXISTS at once
// may both find nothing, and one of them fails on a catalogue's unique index.
// The number is this package's; who else may use it only has to wait.
const schemaLock = 0x6f777470 // "owtp"

// prepareTable checks that the table is there and ours, and makes it if not.
func prepareTable(ctx context.Context, pool *pgxpool.Pool, table string) error {
	err := checkTable(ctx, pool, table)
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	text, _ := Schema(table)
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(schemaLock)); err != nil {
			return err
		}
		// Somebody else may have been first, while we waited or before.
		if err := checkTable(ctx, tx, table); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		_, err := tx.Exec(ctx, text, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if code(err) == codeDenied || code(err) == codeNoSchema {
		err = fmt.Errorf("the table %q is not there (in the search_path), and this account may not make it: let another one run %q: %w", table, text, err)
	}
	return err
}

// checkTable returns pgx.ErrNoRows if there is no such table.
func checkTable(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, table string) error {
	var kind, persistence, comment string
	err := db.QueryRow(ctx, `SELECT relkind::text, relpersistence::text, coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class WHERE oid = to_regclass($1::text)`,
		`"`+table+`"`).Scan(&kind, &persistence, &comment)
	if err != nil {
		return err
	}
	if err := sqlstore.CheckFormat(table, comment); err != nil {
		return err
	}
	if kind != "r" && kind != "p" || persistence != "p" {
		return fmt.Errorf("%q is no table that keeps what it confirms (kind %q, persistence %q): make it with what Schema returns", table, kind, persistence)
	}
	return nil
}

// Codes of errors that are of interest.
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeReadOnly      = "25006"
	codeDiskFull      = "53100"
	codeDenied        = "42501"
	codeNoSchema      = "3F000"
	codeNoTable       = "42P01"
)

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// explain says more about errors that need it.
func explain(err error) error {
	switch code(err) {
	case codeDiskFull:
		return fmt.Errorf("%w: %w", session.ErrFull, err)
	case codeNoTable:
		return fmt.Errorf("%w; it was there when the store was opened: open it again to make a new one", err)
	}
	if code(err) == codeReadOnly || errors.Is(err, pgconn.ErrReadOnlyConnection) {
		return fmt.Errorf("the server only reads: it is a replica in recovery, or was made to by default_transaction_read_only; the address must be the primary's: %w", err)
	}
	return err
}
