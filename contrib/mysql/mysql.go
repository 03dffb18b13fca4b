// Package mysql keeps sessions and a node's state in MySQL or MariaDB, for
// replicas that share them. Importing it makes the store known as "mysql":
//
//	import _ "github.com/owtp-go/owtp/contrib/mysql"
//
//	m, err := owtp.NewSessionManager("mysql", &session.ManagerConfig{
//		ProviderConfig: "owtp:PASSWORD@tcp(db.example.org:3306)/owtp?tls=true",
//	})
//
// ProviderConfig is a DSN of github.com/go-sql-driver/mysql, with the parameters
// that [Options] describes. A program with a [*sql.DB] of its own calls [New].
//
// # The table
//
// The first process that opens the store makes its table; others may do so at
// the same time. An account that may not create tables needs one that is there
// already, made with the statement that [Schema] returns, and these rights:
//
//	GRANT SELECT, INSERT, UPDATE, DELETE ON owtp.owtp_sessions TO 'owtp'@'%';
//
// The table's comment holds the version of its columns. A program refuses a
// table of a version that it does not know.
//
// # What the server must be
//
// The primary: MySQL from 8.0 or MariaDB from 10.5, with InnoDB. All processes
// use the same one. A server that only reads is an error when the store is
// opened, and later an error of every method that writes until the connections
// lead to one that takes it, which they do without a restart. In a Galera
// cluster all processes write to one server, or wsrep_sync_wait is 7: otherwise
// a read may miss what another server has just confirmed, and a call could run
// twice.
//
// What was stored outlives a crash of this program always, and one of the server
// if innodb_flush_log_at_trx_commit is 1, as it is by default. A failover to a
// replica loses what had not reached it; rpl_semi_sync (MySQL and MariaDB) or
// group replication narrow that.
//
// # The clock
//
// Records expire by the server's clock, which no session variable and no time
// zone changes. An expired record that anybody has asked for stays gone even if
// that clock is set back; one that nobody has asked for meanwhile lives for so
// much longer. If the clock is set forward, records expire early: a call record
// that is gone lets a replayed call run again while the callee's own clock has
// not moved. Let the server's clock be slewed (chrony, ntpd), not set.
//
// # Errors
//
// A statement that the server has undone because of a deadlock is run again
// until the context ends; anything else is returned. Waits end with the context,
// or after 30 seconds if it has no deadline. Neither errors nor logs show the
// password.
package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
	"github.com/owtp-go/owtp/session"
)

func init() { session.Register("mysql", Open) }

// A Store is a [session.Provider] in MySQL or MariaDB. All methods are safe for
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
	c, err := parse(cfg.ProviderConfig, cfg.Logger)
	if err != nil {
		return nil, err
	}
	o, db, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	s, err := newStore(ctx, db, o, true)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// New returns a store in a database that the program has opened itself; Close
// leaves it open. db must be of github.com/go-sql-driver/mysql and name a
// database. Its DSN should have rejectReadOnly=true, without which connections
// stay with a server that has become a replica, and bound its pool; parameters
// that change what statements mean, as autocommit=0, are an error.
func New(ctx context.Context, db *sql.DB, o Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("mysql: New needs a database")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	ctx, cancel := sqlstore.Bounded(ctx)
	defer cancel()
	if _, err := prepareServer(ctx, db, o.Table); err != nil {
		return nil, err
	}
	return newStore(ctx, db, o, false)
}

// newStore takes the database over if it is owned, also if there is an error.
func newStore(ctx context.Context, db *sql.DB, o Options, owned bool) (*Store, error) {
	max, err := maxValue(ctx, db)
	if err == nil {
		var t *table
		if t, err = newTable(ctx, db, o.Table, owned); err == nil {
			var s *sqlstore.Store
			if s, err = sqlstore.New(ctx, t, sqlstore.Guaranteed("mysql", max)); err != nil {
				return nil, err
			}
			return &Store{s}, nil
		}
	}
	if owned {
		db.Close()
	}
	return nil, fmt.Errorf("mysql: %w", explain(ctx, db, err))
}
