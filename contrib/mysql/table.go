package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
	"github.com/owtp-go/owtp/session"
)

// The statements mean the same whatever the session's variables are.
//
// Time is computed from UTC_TIMESTAMP, which knows no time zone (UNIX_TIMESTAMP
// of a local time does, and has one hour twice a year that is two), and is when
// the statement began.
//
// Assignments are made from left to right, or all at once in MariaDB's
// SIMULTANEOUS_ASSIGNMENT: what they depend on, expires, comes last.
//
// Whether a condition held is told by LAST_INSERT_ID(1), whose argument comes
// back with the answer if it was evaluated. The number of rows says it only for
// who knows whether the connection counts found or changed ones, and not at all
// where nothing changes.
const (
	now    = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"
	until  = "IF(? = 0, 9223372036854775807, " + now + " + ?)"
	lives  = "expires > " + now
	buried = "0" // 1970: no clock is set back so far

	getText = "SELECT value, version, expires, " + now + " FROM `%s` WHERE name = ?"
	putText = "INSERT INTO `%s` (name, value, version, expires) VALUES (?, ?, ?, " + until + ")" +
		" ON DUPLICATE KEY UPDATE value = VALUES(value), version = VALUES(version), expires = VALUES(expires)"
	insertText = "INSERT INTO `%s` (name, value, version, expires) VALUES (?, ?, ?, " + until + ")" +
		" ON DUPLICATE KEY UPDATE value = IF(" + lives + ", value, VALUES(value)), version = IF(" + lives + ", version, VALUES(version))," +
		" expires = IF(" + lives + ", IF(LAST_INSERT_ID(1) = 1, expires, expires), VALUES(expires))"
	swapText = "UPDATE `%s` SET value = IF(" + lives + ", ?, value), version = IF(" + lives + ", ?, version)," +
		" expires = IF(" + lives + ", IF(LAST_INSERT_ID(1) = 1, " + until + ", 0), " + buried + ") WHERE name = ? AND version = ?"
	touchText = "UPDATE `%s` SET expires = IF(" + lives + ", IF(LAST_INSERT_ID(1) = 1, " + until + ", 0), " + buried + ")" +
		" WHERE name = ? AND version = ?"
	deleteText = "DELETE FROM `%s` WHERE name = ?"
	removeText = "DELETE FROM `%s` WHERE name = ? AND version = ? AND expires = ?"
	expireText = "SELECT name, version, expires, " + now + " FROM `%s` WHERE expires <= " + now + " ORDER BY expires LIMIT ?"
	pageText   = "SELECT name, version, expires, " + now + " FROM `%s` WHERE name >= ? AND name > ?%s ORDER BY name LIMIT ?"

	// How many rows one statement removes. They are found by their keys, in
	// whose order the server locks them: two that remove the same wait for each
	// other, but not in a circle.
	removeBatch = 64
)

var removeManyText = removeText + strings.Repeat(" OR name = ? AND version = ? AND expires = ?", removeBatch-1)

type table struct {
	db    *sql.DB
	owned bool
	name  string

	get, put, insert, swap, touch, delete, removeOne, removeMany, expired *sql.Stmt
}

func newTable(ctx context.Context, db *sql.DB, name string, owned bool) (*table, error) {
	t := &table{db: db, owned: owned, name: name}
	for _, s := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&t.get, getText}, {&t.put, putText}, {&t.insert, insertText}, {&t.swap, swapText}, {&t.touch, touchText},
		{&t.delete, deleteText}, {&t.removeOne, removeText}, {&t.removeMany, removeManyText}, {&t.expired, expireText},
	} {
		var err error
		if *s.to, err = db.PrepareContext(ctx, fmt.Sprintf(s.text, name)); err != nil {
			t.closeStatements()
			return nil, err
		}
	}
	return t, nil
}

func (t *table) closeStatements() {
	for _, s := range []*sql.Stmt{t.get, t.put, t.insert, t.swap, t.touch, t.delete, t.removeOne, t.removeMany, t.expired} {
		if s != nil {
			s.Close()
		}
	}
}

func (t *table) Close() {
	if t.owned {
		t.db.Close() // which ends its statements too, without asking the server
		return
	}
	t.closeStatements()
}

func (t *table) Get(ctx context.Context, key string) (r sqlstore.Row, err error) {
	err = t.get.QueryRowContext(ctx, []byte(key)).Scan(&r.Value, &r.Version, &r.Expires, &r.Now)
	if errors.Is(err, sql.ErrNoRows) {
		err = session.ErrNotFound
	}
	return r, err
}

func (t *table) Put(ctx context.Context, key string, value []byte, version uint64, micros int64) error {
	_, err := t.put.ExecContext(ctx, []byte(key), octets(value), version, micros, micros)
	return err
}

func (t *table) Insert(ctx context.Context, key string, value []byte, version uint64, micros int64) (bool, error) {
	there, err := marked(t.insert.ExecContext(ctx, []byte(key), octets(value), version, micros, micros))
	return !there, err
}

func (t *table) Swap(ctx context.Context, key string, old uint64, value []byte, version uint64, micros int64) (bool, error) {
	return marked(t.swap.ExecContext(ctx, octets(value), version, micros, micros, []byte(key), old))
}

func (t *table) Touch(ctx context.Context, key string, version uint64, micros int64) (bool, error) {
	return marked(t.touch.ExecContext(ctx, micros, micros, []byte(key), version))
}

func (t *table) Delete(ctx context.Context, key string) error {
	_, err := t.delete.ExecContext(ctx, []byte(key))
	return err
}

func (t *table) Page(ctx context.Context, from, after, to string, limit int) ([]sqlstore.Listed, error) {
	below, args := "", []any{[]byte(from), []byte(after)}
	if to != "" {
		below, args = " AND name < ?", append(args, []byte(to))
	}
	return listed(t.db.QueryContext(ctx, fmt.Sprintf(pageText, t.name, below), append(args, limit)...))
}

func (t *table) Remove(ctx context.Context, rows []sqlstore.Stamp) (int, error) {
	removed := 0
	for len(rows) > 0 {
		n := min(len(rows), removeBatch)
		statement, batch := t.removeOne, 1
		if n > 1 {
			statement, batch = t.removeMany, removeBatch
		}
		args := make([]any, 0, 3*batch)
		for i := range batch { // short of a whole batch, the last one comes again
			r := rows[min(i, n-1)]
			args = append(args, []byte(r.Key), r.Version, r.Expires)
		}
		done, err := statement.ExecContext(ctx, args...)
		if err != nil {
			return removed, err
		}
		affected, err := done.RowsAffected()
		if err != nil {
			return removed, err
		}
		removed += int(affected)
		rows = rows[n:]
	}
	return removed, nil
}

// Sweep looks for rows without locking any, and removes them by their keys.
func (t *table) Sweep(ctx context.Context, max int) (removed int, more bool, err error) {
	page, err := listed(t.expired.QueryContext(ctx, max))
	if err != nil {
		return 0, false, err
	}
	rows := make([]sqlstore.Stamp, len(page))
	for i := range page {
		rows[i] = page[i].Stamp
	}
	removed, err = t.Remove(ctx, rows)
	return removed, len(rows) == max, err
}

func (t *table) RolledBack(err error) bool {
	n := number(err)
	return n == errDeadlock || n == errChanged
}

func (t *table) Explain(ctx context.Context, err error) error { return explain(ctx, t.db, err) }

// marked reports whether LAST_INSERT_ID(1) was evaluated.
func marked(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	id, err := r.LastInsertId()
	return id == 1, err
}

func listed(rows *sql.Rows, err error) ([]sqlstore.Listed, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []sqlstore.Listed
	for rows.Next() {
		var r sqlstore.Listed
		if err := rows.Scan(&r.Key, &r.Version, &r.Expires, &r.Now); err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

// octets makes of no value an empty one: to the driver nil is NULL.
func octets(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func lost(err error) bool { return errors.Is(err, driver.ErrBadConn) }
