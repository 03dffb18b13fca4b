package postgres

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
	"github.com/owtp-go/owtp/session"
)

// The time is when the statement began: within one it is the same everywhere.
// In those that write, $1 is the time to live in microseconds. The casts are for
// connections that do not prepare statements.
const (
	until  = "CASE WHEN $1::bigint = 0 THEN 'infinity'::timestamptz ELSE statement_timestamp() + $1::bigint * interval '1 microsecond' END"
	lives  = "r.expires > statement_timestamp()"
	buried = "'-infinity'::timestamptz"

	getText = "SELECT r.value, r.version, r.expires, statement_timestamp() FROM TABLE r WHERE r.key = $1::bytea"
	putText = "INSERT INTO TABLE AS r (key, value, version, expires) VALUES ($2::bytea, $3::bytea, $4::bigint, " + until + ")" +
		" ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, expires = EXCLUDED.expires"
	insertText = putText + " WHERE NOT " + lives
	swapText   = "UPDATE TABLE r SET value = CASE WHEN " + lives + " THEN $3::bytea ELSE ''::bytea END," +
		" version = CASE WHEN " + lives + " THEN $4::bigint ELSE r.version END," +
		" expires = CASE WHEN " + lives + " THEN " + until + " ELSE " + buried + " END" +
		" WHERE r.key = $2::bytea AND r.version = $5::bigint RETURNING r.expires > " + buried
	touchText = "UPDATE TABLE r SET expires = CASE WHEN " + lives + " THEN " + until + " ELSE " + buried + " END" +
		" WHERE r.key = $2::bytea AND r.version = $3::bigint RETURNING r.expires > " + buried
	deleteText = "DELETE FROM TABLE WHERE key = $1::bytea"
	removeText = "DELETE FROM TABLE r USING unnest($1::bytea[], $2::bigint[], $3::timestamptz[]) AS seen (key, version, expires)" +
		// Found by the key alone: many may have the same time of expiry.
		" WHERE r.key = seen.key AND r.version IS NOT DISTINCT FROM seen.version AND r.expires IS NOT DISTINCT FROM seen.expires"
	sweepText = "WITH seen AS (SELECT key FROM TABLE WHERE expires <= statement_timestamp() ORDER BY expires LIMIT $1::bigint FOR UPDATE SKIP LOCKED)" +
		" DELETE FROM TABLE r USING seen WHERE r.key = seen.key"
	pageText = "SELECT r.key, r.version, r.expires, statement_timestamp() FROM TABLE r" +
		" WHERE r.key >= $1::bytea AND r.key > $2::bytea ORDER BY r.key LIMIT $3::bigint"
	boundedText = "SELECT r.key, r.version, r.expires, statement_timestamp() FROM TABLE r" +
		" WHERE r.key >= $1::bytea AND r.key > $2::bytea AND r.key < $4::bytea ORDER BY r.key LIMIT $3::bigint"
)

type table struct {
	pool  *pgxpool.Pool
	owned bool

	get, put, insert, swap, touch, delete, remove, sweep, page, bounded string
}

func newTable(pool *pgxpool.Pool, name string, owned bool) *table {
	in := func(text string) string { return strings.ReplaceAll(text, "TABLE", `"`+name+`"`) }
	return &table{pool: pool, owned: owned, get: in(getText), put: in(putText), insert: in(insertText), swap: in(swapText), touch: in(touchText),
		delete: in(deleteText), remove: in(removeText), sweep: in(sweepText), page: in(pageText), bounded: in(boundedText)}
}

func (t *table) Close() {
	if t.owned {
		t.pool.Close()
	}
}

// with runs f on a connection. One to a server that only reads is closed: the
// next may lead elsewhere.
func (t *table) with(ctx context.Context, f func(conn *pgx.Conn) error) error {
	conn, err := t.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err = f(conn.Conn()); code(err) == codeReadOnly {
		conn.Conn().Close(ctx)
	}
	return err
}

// exec returns how many rows a statement has changed.
func (t *table) exec(ctx context.Context, text string, args ...any) (n int, err error) {
	err = t.with(ctx, func(conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, text, args...)
		n = int(tag.RowsAffected())
		return err
	})
	return n, err
}

// holds returns the one value that a statement has returned, or false.
func (t *table) holds(ctx context.Context, text string, args ...any) (is bool, err error) {
	err = t.with(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, text, args...).Scan(&is) })
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return is, err
}

func (t *table) Get(ctx context.Context, key string) (r sqlstore.Row, err error) {
	var version int64
	var expires, now moment
	err = t.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, t.get, []byte(key)).Scan(&r.Value, &version, &expires, &now)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = session.ErrNotFound
	}
	r.Version, r.Expires, r.Now = uint64(version), expires.micros(), now.micros()
	return r, err
}

func (t *table) Put(ctx context.Context, key string, value []byte, version uint64, micros int64) error {
	_, err := t.exec(ctx, t.put, micros, []byte(key), octets(value), int64(version))
	return err
}

func (t *table) Insert(ctx context.Context, key string, value []byte, version uint64, micros int64) (bool, error) {
	n, err := t.exec(ctx, t.insert, micros, []byte(key), octets(value), int64(version))
	return n == 1, err
}

func (t *table) Swap(ctx context.Context, key string, old uint64, value []byte, version uint64, micros int64) (bool, error) {
	return t.holds(ctx, t.swap, micros, []byte(key), octets(value), int64(version), int64(old))
}

func (t *table) Touch(ctx context.Context, key string, version uint64, micros int64) (bool, error) {
	return t.holds(ctx, t.touch, micros, []byte(key), int64(version))
}

func (t *table) Delete(ctx context.Context, key string) error {
	_, err := t.exec(ctx, t.delete, []byte(key))
	return err
}

func (t *table) Page(ctx context.Context, from, after, to string, limit int) (page []sqlstore.Listed, err error) {
	text, args := t.page, []any{[]byte(from), []byte(after), limit}
	if to != "" {
		text, args = t.bounded, append(args, []byte(to))
	}
	err = t.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, text, args...)
		if err != nil {
			return err
		}
		var key []byte
		var version int64
		var expires, now moment
		_, err = pgx.ForEachRow(rows, []any{&key, &version, &expires, &now}, func() error {
			stamp := sqlstore.Stamp{Key: string(key), Version: uint64(version), Expires: expires.micros()}
			page = append(page, sqlstore.Listed{Stamp: stamp, Now: now.micros()})
			return nil
		})
		return err
	})
	return page, err
}

func (t *table) Remove(ctx context.Context, rows []sqlstore.Stamp) (int, error) {
	keys, versions, expires := make([][]byte, len(rows)), make([]int64, len(rows)), make([]pgtype.Timestamptz, len(rows))
	for i, r := range rows {
		keys[i], versions[i], expires[i] = []byte(r.Key), int64(r.Version), pgtype.Timestamptz(momentOf(r.Expires))
	}
	return t.exec(ctx, t.remove, keys, versions, expires)
}

// Sweep passes rows by that somebody else has locked: they are being replaced,
// or swept.
func (t *table) Sweep(ctx context.Context, max int) (removed int, more bool, err error) {
	removed, err = t.exec(ctx, t.sweep, max)
	return removed, removed == max, err
}

func (t *table) RolledBack(err error) bool {
	return code(err) == codeDeadlock || code(err) == codeSerialization
}

func (t *table) Explain(_ context.Context, err error) error { return explain(err) }

// A moment is a time of the server's, which may be infinite.
type moment pgtype.Timestamptz

// ScanTimestamptz implements [pgtype.TimestamptzScanner].
func (m *moment) ScanTimestamptz(v pgtype.Timestamptz) error {
	if !v.Valid {
		return errors.New("the row is damaged or of somebody else's: it has no time of expiry")
	}
	*m = moment(v)
	return nil
}

func (m moment) micros() int64 {
	switch m.InfinityModifier {
	case pgtype.Infinity:
		return sqlstore.Never
	case pgtype.NegativeInfinity:
		return math.MinInt64
	}
	return m.Time.UnixMicro()
}

func momentOf(micros int64) moment {
	switch micros {
	case sqlstore.Never:
		return moment{InfinityModifier: pgtype.Infinity, Valid: true}
	case math.MinInt64:
		return moment{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	return moment{Time: time.UnixMicro(micros), Valid: true}
}

// octets makes of no value an empty one: to the driver nil is NULL.
func octets(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}
