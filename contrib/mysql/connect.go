package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// open makes the table if need be and returns the pool.
func (c *config) open(ctx context.Context) (Options, *sql.DB, error) {
	base, err := mysql.NewConnector(c.driver)
	if err != nil {
		return Options{}, nil, fmt.Errorf("mysql: ProviderConfig: %w", err)
	}
	first := sql.OpenDB(connector{base, c.driver.Timeout, nil})
	defer first.Close()
	v, err := prepareServer(ctx, first, c.Table)
	if err != nil {
		return Options{}, nil, err
	}
	// Strict: nothing is cut off silently.
	setup := []string{"SET SESSION autocommit = 1, SESSION sql_mode = 'STRICT_ALL_TABLES'"}
	if !v.statementLog() {
		// Other levels lock the gaps between keys too, in which new records
		// would meet.
		setup = append(setup, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
	}
	db := sql.OpenDB(connector{base, c.driver.Timeout, setup})
	db.SetMaxOpenConns(c.maxConns)
	db.SetMaxIdleConns(c.maxConns)
	db.SetConnMaxLifetime(c.lifetime)
	db.SetConnMaxIdleTime(c.idleTime)
	return c.Options, db, nil
}

// A connector sets connections up. The pool opens some of them with a context
// that has no deadline.
type connector struct {
	driver.Connector
	patience time.Duration
	setup    []string
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range c.setup {
		if _, err := conn.(driver.ExecerContext).ExecContext(ctx, statement, nil); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// Errors of servers that are of interest.
const (
	errTableFull    = 1114
	errDiskFull     = 1021
	errDeadlock     = 1213
	errChanged      = 1020 // MariaDB, innodb_snapshot_isolation
	errReadOnly     = 1290
	errReadOnlyMode = 1836
	errReadOnlyTx   = 1792
	errDenied       = 1142
	errNoTable      = 1146
)

func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}
