package mysql

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/owtp-go/owtp/contrib/internal/sqlstore"
)

const (
	defaultTable = "owtp_sessions"

	// Servers take 151 connections by default: enough for several replicas.
	// One connection does hundreds of writes a second.
	defaultMaxConns = 16

	// A connection that is used for long, or not used, is replaced: servers,
	// proxies and firewalls forget such ones, and after a failover the pool
	// spreads again.
	defaultLifetime = time.Hour
	defaultIdleTime = 10 * time.Minute

	// What ends a wait that no context does.
	connectPatience = 10 * time.Second
	ioPatience      = 30 * time.Second
)

// Options are what the store needs to know beside a database. In ProviderConfig
// they are parameters of the DSN: table, pool_max_conns, pool_max_conn_lifetime
// and pool_max_conn_idle_time. The others are the driver's: tls among them, and
// timeout, readTimeout and writeTimeout, which are 10 s, 30 s and 30 s if they
// are not given.
type Options struct {
	// Table is the table's name: 1 to 48 lower-case letters, digits and
	// underscores with a letter first. "" means owtp_sessions. Stores in two
	// tables have nothing to do with each other.
	Table string
}

func (o *Options) check() error {
	if o.Table == "" {
		o.Table = defaultTable
	}
	if err := sqlstore.CheckTable(o.Table); err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	return nil
}

// config is a checked ProviderConfig.
type config struct {
	Options
	driver             *mysql.Config
	maxConns           int
	lifetime, idleTime time.Duration
}

const dsnForm = "user:password@tcp(host:port)/database?parameter=value"

func parse(dsn string, logger *slog.Logger) (*config, error) {
	if dsn == "" {
		return nil, errors.New("mysql: ProviderConfig is empty; it is to be " + dsnForm)
	}
	driver, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	if driver.DBName == "" {
		return nil, errors.New("mysql: ProviderConfig names no database; it is to be " + dsnForm)
	}
	c := &config{driver: driver, maxConns: defaultMaxConns, lifetime: defaultLifetime, idleTime: defaultIdleTime}
	for name, value := range driver.Params {
		own := true
		switch name {
		case "table":
			c.Table = value
		case "pool_max_conns":
			if c.maxConns, err = strconv.Atoi(value); err != nil || c.maxConns < 1 || c.maxConns > 10_000 {
				return nil, errors.New("mysql: ProviderConfig: pool_max_conns is not a number from 1 to 10000")
			}
		case "pool_max_conn_lifetime":
			c.lifetime, err = positive(name, value)
		case "pool_max_conn_idle_time":
			c.idleTime, err = positive(name, value)
		default:
			own = false
		}
		if err != nil {
			return nil, err
		}
		if own {
			delete(driver.Params, name)
		}
	}
	c.settle(logger)
	return c, c.check()
}

func positive(name, value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("mysql: ProviderConfig: %s is not a time like 10m or 1h", name)
	}
	return d, nil
}

// settle overrides what the DSN may not decide, and fills in what it has not.
func (c *config) settle(logger *slog.Logger) {
	d := c.driver
	d.Logger = silent(logger)
	d.AllowAllFiles, d.MultiStatements = false, false
	// A server that only reads is given up, and the statement, which it has
	// refused, is run where a new connection leads to.
	d.RejectReadOnly = true
	d.Timeout = positiveOr(d.Timeout, connectPatience)
	d.ReadTimeout = positiveOr(d.ReadTimeout, ioPatience)
	d.WriteTimeout = positiveOr(d.WriteTimeout, ioPatience)
}

func positiveOr(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// parseDSN hides what the driver's parser says about values, since a password
// with a character that belongs escaped makes parts of itself look like one.
func parseDSN(dsn string) (cfg *mysql.Config, err error) {
	defer func() {
		if recover() != nil { // the parser panics at a parameter that it once had
			cfg, err = nil, errors.New("mysql: ProviderConfig has a parameter that the driver refuses (strict?)")
		}
	}()
	if cfg, err = mysql.ParseDSN(dsn); err == nil {
		return cfg, nil
	}
	const plain = "invalid DSN: "
	if strings.HasPrefix(err.Error(), plain) {
		return nil, fmt.Errorf("mysql: ProviderConfig is not %s: %s", dsnForm, strings.TrimPrefix(err.Error(), plain))
	}
	return nil, errors.New("mysql: ProviderConfig is not " + dsnForm + ", or a parameter has a value that it cannot have (which is not shown: it may be part of a password)")
}

// silent passes the driver's remarks on where somebody listens.
func silent(logger *slog.Logger) mysql.Logger {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &remarks{logger}
}

type remarks struct{ log *slog.Logger }

func (r *remarks) Print(v ...any) { r.log.Debug("mysql: driver", "remark", fmt.Sprint(v...)) }
