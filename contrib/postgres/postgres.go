// Package postgres keeps sessions and a node's state in PostgreSQL, for replicas
// that share them. Importing it makes the store known as "postgres":
//
//	import _ "github.com/owtp-go/owtp/contrib/postgres"
//
//	m, err := owtp.NewSessionManager("postgres", &session.ManagerConfig{
//		ProviderConfig: "postgres://owtp:PASSWORD@db.example.org:5432/owtp?sslmode=verify-full",
//	})
//
// ProviderConfig is a URL or a keyword/value string of github.com/jackc/pgx/v5,
// with the parameters that [Options] describes; what it does not say is taken
// from PGHOST, PGSSLMODE and the other variables of libpq. A program with a
// [*pgxpool.Pool] of its own calls [New].
//
// # The table
//
// The first process that opens the store makes its table, in the first schema of
// the search_path; others may do so at the same time. An account that may not
// create tables needs one that is there already, made with the statements that
// [Schema] returns, and these rights:
//
//	GRANT SELECT, INSERT, UPDATE, DELETE ON owtp_sessions TO owtp;
//
// The table's comment holds the version of its columns. A program refuses a
// table of a version that it does not know.
//
// # What the server must be
//
// The primary, PostgreSQL from 12; all processes use the same one. A server that
// only reads is an error when the store is opened, and later an error of every
// method that writes until the connections lead to one that takes it, which they
// do without a restart; a URL may name several hosts, of which the one that
// writes is taken.
// Behind a pooler that gives statements to any of its connections (PgBouncer in
// transaction mode) set default_query_exec_mode=exec, or max_prepared_statements
// there.
//
// What was stored outlives a crash of this program always, and one of the server
// unless synchronous_commit is off. A failover to a replica loses what had not
// reached it, unless synchronous_standby_names makes the server wait for that.
//
// # The clock
//
// Records expire by the server's clock, whatever the time zone. An expired
// record that anybody has asked for stays gone even if that clock is set back;
// one that nobody has asked for meanwhile lives for so much longer. If the clock
// is set forward, records expire early: a call record that is gone lets a
// replayed call run again while the callee's own clock has not moved. Let the
// server's clock be slewed (chrony, ntpd), not set.
//
// # Errors
//
// A statement that the server has undone because of others (a deadlock, a
// serialization failure) is run again until the context ends; anything else is
// returned. Waits end with the context, or after 30 seconds if it has no
// deadline. Neither errors nor logs show the password.
package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
	"github.com/owtp-go/owtp/session"
)

func init() { session.Register("postgres", Open) }

// A Store is a [session.Provider] in PostgreSQL. All methods are safe for
// concurrent use.
type Store struct{ *sqlstore.Store }

// Open is the [session.Opener] of this package: it opens the store that
// ProviderConfig names. MaxSessions and Now are not used.
func Open(ctx context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
	if cfg == nil {
		cfg = new(session.ManagerConfig)
	}
	ctx, cancel := sqlstore.Bounded(ctx)
	defer cancel()
	c, o, err := parse(cfg.ProviderConfig)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	s, err := newStore(ctx, pool, o, true)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// New returns a store on a pool that the program has opened itself; Close leaves
// it open. Its target_session_attrs should be read-write where the server may
// become a replica.
func New(ctx context.Context, pool *pgxpool.Pool, o Options) (*Store, error) {
	if pool == nil {
		return nil, errors.New("postgres: New needs a pool")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	ctx, cancel := sqlstore.Bounded(ctx)
	defer cancel()
	return newStore(ctx, pool, o, false)
}

// newStore takes the pool over if it is owned, also if there is an error.
func newStore(ctx context.Context, pool *pgxpool.Pool, o Options, owned bool) (*Store, error) {
	t := newTable(pool, o.Table, owned)
	if err := prepareTable(ctx, pool, o.Table); err != nil {
		t.Close()
		return nil, fmt.Errorf("postgres: %w", explain(err))
	}
	s, err := sqlstore.New(ctx, t, sqlstore.Guaranteed("postgres", session.MaxValueLen))
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}
