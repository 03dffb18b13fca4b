package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
	"github.com/owtp-go/owtp/session"
)

// Schema returns the statement that makes a table, for operators whose programs
// may not. A name that [Options] does not allow is an error.
//
// The columns: the key, the value, a version that is drawn with each value, and
// when the record expires, in microseconds since 1970 (never: the greatest
// number).
func Schema(table string) (string, error) {
	o := Options{Table: table}
	if err := o.check(); err != nil {
		return "", err
	}
	return fmt.Sprintf(schema, o.Table, sqlstore.Format), nil
}

const schema = "CREATE TABLE IF NOT EXISTS `%s` (\n" +
	"  name VARBINARY(1024) NOT NULL PRIMARY KEY,\n" +
	"  value MEDIUMBLOB NOT NULL,\n" +
	"  version BIGINT UNSIGNED NOT NULL,\n" +
	"  expires BIGINT NOT NULL,\n" +
	"  INDEX expires (expires)\n" +
	") ENGINE = InnoDB, ROW_FORMAT = DYNAMIC, COMMENT = '%s'"

// variables are what the server says about itself.
type variables map[string]string

// statementLog: InnoDB refuses to write at the level READ COMMITTED.
func (v variables) statementLog() bool {
	return v["log_bin"] == "ON" && strings.EqualFold(v["binlog_format"], "STATEMENT")
}

// prepareServer checks that this is a server to write to, and that the table is
// there and ours; it makes it if not.
func prepareServer(ctx context.Context, db *sql.DB, table string) (variables, error) {
	v, err := readVariables(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("mysql: %w", explain(ctx, db, err))
	}
	for _, name := range []string{"read_only", "super_read_only", "innodb_read_only"} {
		if value := v[name]; value != "" && value != "OFF" && value != "0" {
			return nil, fmt.Errorf("mysql: %w", readOnly(nil))
		}
	}
	comment, err := tableComment(ctx, db, table)
	if errors.Is(err, sql.ErrNoRows) {
		text, _ := Schema(table)
		if _, err = db.ExecContext(ctx, text); err != nil {
			if number(err) == errDenied {
				err = fmt.Errorf("the table %q is not there, and this account may not make it: let another one run %q: %w", table, text, err)
			}
			return nil, fmt.Errorf("mysql: %w", explain(ctx, db, err))
		}
		// Somebody else may have been first.
		comment, err = tableComment(ctx, db, table)
	}
	if err != nil {
		return nil, fmt.Errorf("mysql: %w", explain(ctx, db, err))
	}
	if err := sqlstore.CheckFormat(table, comment); err != nil {
		return nil, fmt.Errorf("mysql: %w", err)
	}
	return v, nil
}

func readVariables(ctx context.Context, db *sql.DB) (variables, error) {
	rows, err := db.QueryContext(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN "+
		"('read_only', 'super_read_only', 'innodb_read_only', 'log_bin', 'binlog_format')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	v := make(variables)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		v[strings.ToLower(name)] = value
	}
	return v, rows.Err()
}

// tableComment returns sql.ErrNoRows if there is no such table that this account
// sees.
func tableComment(ctx context.Context, db *sql.DB, table string) (string, error) {
	var kind string
	var engine, comment sql.NullString
	err := db.QueryRowContext(ctx, "SELECT TABLE_TYPE, ENGINE, TABLE_COMMENT FROM information_schema.TABLES "+
		"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?", table).Scan(&kind, &engine, &comment)
	if err != nil {
		return "", err
	}
	if kind != "BASE TABLE" || !strings.EqualFold(engine.String, "InnoDB") {
		return "", fmt.Errorf("%q is a %s of engine %q, and the store needs a table of InnoDB's: others do not do what they confirm, or not at once", table, kind, engine.String)
	}
	return comment.String, nil
}

// The rest of a packet beside the value: the key, and the statement's numbers.
const packetOverhead = 4096

// maxValue returns how long a value may be, and checks that a statement stands by
// itself.
func maxValue(ctx context.Context, db *sql.DB) (int, error) {
	var packet, autocommit string
	if err := db.QueryRowContext(ctx, "SELECT @@max_allowed_packet, @@autocommit").Scan(&packet, &autocommit); err != nil {
		return 0, err
	}
	if autocommit != "1" {
		return 0, errors.New("the connections have autocommit=0, so that nothing would ever be stored: leave that parameter out")
	}
	n, err := strconv.Atoi(packet)
	if err != nil {
		return 0, fmt.Errorf("max_allowed_packet is %.40q", packet)
	}
	if n -= packetOverhead; n < 64<<10 {
		return 0, fmt.Errorf("the server's max_allowed_packet is %s: a session may take 64 KiB, let it be 1 MiB at least", packet)
	}
	return n, nil
}

// explain says more about errors that need it.
func explain(ctx context.Context, db *sql.DB, err error) error {
	switch number(err) {
	case errReadOnly, errReadOnlyMode, errReadOnlyTx:
		return readOnly(err)
	case errTableFull, errDiskFull:
		return fmt.Errorf("%w: %w", session.ErrFull, err)
	case errNoTable:
		return fmt.Errorf("%w; it was there when the store was opened: open it again to make a new one", err)
	}
	if lost(err) {
		// Nothing has been sent, or a server that only reads has refused it
		// (RejectReadOnly), on every connection that there was.
		if v, verr := readVariables(ctx, db); verr == nil && v["read_only"] != "OFF" && v["read_only"] != "" {
			return readOnly(err)
		}
	}
	return err
}

func readOnly(err error) error {
	const text = "the server only reads: it is a replica, or was made to by read_only; the address must be the primary's"
	if err == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %w", text, err)
}
