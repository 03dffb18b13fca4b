package postgres

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
)

const (
	defaultTable = "owtp_sessions"

	// Servers take 100 connections by default: enough for several replicas.
	// One connection does hundreds of writes a second.
	defaultMaxConns = 16

	// What ends a connection's making that no context does.
	connectPatience = 10 * time.Second
)

// Options are what the store needs to know beside a pool. In ProviderConfig they
// are parameters: table. The others are the driver's: the sslmode and sslrootcert
// of libpq among them, pool_max_conns, which is 16 if it is not given, and
// pgxpool's other ones; connect_timeout is 10 seconds if it is not given, and
// target_session_attrs read-write.
type Options struct {
	// Table is the table's name: 1 to 48 lower-case letters, digits and
	// underscores with a letter first. "" means owtp_sessions. Stores in two
	// tables have nothing to do with each other. The schema is that of the
	// search_path.
	Table string
}

func (o *Options) check() error {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if err := sqlstore.CheckTable(o.Table); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

const dsnForm = "postgres://user:password@host:port/database?parameter=value"

// parse hides what the driver's parser says, since a password with a character
// that belongs escaped makes parts of itself look like something else.
func parse(dsn string) (*pgxpool.Config, Options, error) {
	var o Options
	if dsn == "" {
		return nil, o, errors.New("postgres: ProviderConfig is empty; it is to be " + dsnForm)
	}
	plain, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, o, errors.New("postgres: ProviderConfig is not " + dsnForm + ", or a parameter has a value that it cannot have (which is not shown: it may be part of a password)")
	}
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, o, errors.New("postgres: ProviderConfig: one of pgxpool's parameters (pool_max_conns and so on) has a value that it cannot have")
	}
	if _, given := plain.RuntimeParams["pool_max_conns"]; !given {
		c.MaxConns = max(defaultMaxConns, c.MinConns, c.MinIdleConns)
	}
	o.Table = c.ConnConfig.RuntimeParams["table"]
	delete(c.ConnConfig.RuntimeParams, "table")
	if c.ConnConfig.ConnectTimeout <= 0 {
		c.ConnConfig.ConnectTimeout = connectPatience
	}
	if c.ConnConfig.ValidateConnect == nil {
		c.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return c, o, o.check()
}
