package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// defaultTimeout is how long dialling, one answer, and waiting for a free
	// connection take at most; a context may end them sooner.
	defaultTimeout = 3 * time.Second

	// defaultPool is how many connections there are to one server at most:
	// beyond some dozens a server with one thread answers none of them sooner.
	defaultPool = 32
	maxPool     = 10_000

	maxURL   = 16 << 10 // bytes
	maxAddrs = 100
)

// A config is what a URL says.
type config struct {
	driver  redis.UniversalOptions
	cluster bool
	options Options
}

// errURL does not repeat any of it: what looks like a path or a port may be a
// part of the password.
var errURL = errors.New(`redis: ProviderConfig is not a URL like "redis://user:password@host:6379/0" (write special characters of a password as %XX)`)

// parse reads the driver's usual URL, with options of our own.
func parse(text string) (*config, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("redis: ProviderConfig has %d bytes, at most %d are allowed", len(text), maxURL)
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, errURL
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errURL
	}
	c := &config{driver: redis.UniversalOptions{
		DialTimeout: defaultTimeout, ReadTimeout: defaultTimeout, WriteTimeout: defaultTimeout, PoolTimeout: defaultTimeout,
		PoolSize: defaultPool, MaxRetries: 1,
	}}
	v := &values{query: query}
	c.take(v)
	if err := c.place(u, v); err != nil {
		return nil, err
	}
	c.secure(u, v)
	if err := v.end(); err != nil {
		return nil, err
	}
	return c, c.fix()
}

// take reads the options that do not say where the servers are.
func (c *config) take(v *values) {
	d, o := &c.driver, &c.options
	v.text("client_name", &d.ClientName)
	v.number("protocol", &d.Protocol, 2, 3)
	v.number("max_retries", &d.MaxRetries, 0, 10)
	v.number("pool_size", &d.PoolSize, 1, maxPool)
	v.number("min_idle_conns", &d.MinIdleConns, 0, maxPool)
	v.number("max_idle_conns", &d.MaxIdleConns, 0, maxPool)
	v.duration("dial_timeout", &d.DialTimeout)
	v.duration("read_timeout", &d.ReadTimeout)
	v.duration("write_timeout", &d.WriteTimeout)
	v.duration("pool_timeout", &d.PoolTimeout)
	v.duration("conn_max_idle_time", &d.ConnMaxIdleTime)
	v.duration("conn_max_lifetime", &d.ConnMaxLifetime)
	v.text("prefix", &o.Prefix)
	v.number("wait_replicas", &o.WaitReplicas, 0, maxWaitReplicas)
	v.duration("wait_timeout", &o.WaitTimeout)
	if o.WaitReplicas > 0 && len(v.query["read_timeout"]) == 0 {
		d.ReadTimeout += max(o.WaitTimeout, defaultWaitTimeout)
	}
}

// place reads where the servers are and who we are to them.
func (c *config) place(u *url.URL, v *values) error {
	d := &c.driver
	v.text("master_name", &d.MasterName)
	v.flag("cluster", &c.cluster)
	v.number("db", &d.DB, 0, 1<<20)
	more := v.take("addr")
	port := "6379"
	password, _ := u.User.Password()
	if d.MasterName != "" {
		// As in the driver: who asks a sentinel stands before its address.
		port = "26379"
		d.SentinelUsername, d.SentinelPassword = u.User.Username(), password
		v.text("username", &d.Username)
		v.text("password", &d.Password)
	} else {
		d.Username, d.Password = u.User.Username(), password
		c.cluster = c.cluster || len(more) > 0
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" || d.MasterName != "" || c.cluster {
			return errors.New(`redis: a "unix" URL has the path of a socket and names one server, as "unix://user:password@/path/to/socket?db=0" does`)
		}
		d.Addrs = []string{u.Path}
		return nil
	case "redis", "rediss":
	default:
		return errURL
	}
	d.Addrs = []string{net.JoinHostPort(orElse(u.Hostname(), "localhost"), orElse(u.Port(), port))}
	for _, addr := range more {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" {
			return errors.New(`redis: an "addr" in ProviderConfig is not of the form host:port`)
		}
		d.Addrs = append(d.Addrs, addr)
	}
	if len(d.Addrs) > maxAddrs {
		return fmt.Errorf("redis: ProviderConfig has %d addresses, at most %d are allowed", len(d.Addrs), maxAddrs)
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		n, err := strconv.ParseUint(db, 10, 20)
		if err != nil {
			return errURL
		}
		d.DB = int(n)
	}
	if c.cluster && d.DB != 0 {
		return errors.New("redis: a cluster has the database 0 only")
	}
	return nil
}

// secure reads what TLS needs. Certificates are always verified.
func (c *config) secure(u *url.URL, v *values) {
	var name, ca, cert, key string
	v.text("server_name", &name)
	v.text("ca_file", &ca)
	v.text("cert_file", &cert)
	v.text("key_file", &key)
	if u.Scheme != "rediss" {
		if name+ca+cert+key != "" {
			v.fail("server_name, ca_file, cert_file and key_file are for rediss:// only")
		}
		return
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name}
	if name == "" && c.driver.MasterName == "" && !c.cluster {
		t.ServerName = u.Hostname()
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		t.RootCAs = x509.NewCertPool()
		if err != nil || !t.RootCAs.AppendCertsFromPEM(pem) {
			v.fail("ca_file cannot be read, or has no certificate in PEM")
		}
	}
	if (cert == "") != (key == "") {
		v.fail("cert_file and key_file belong together")
	} else if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			v.fail("cert_file and key_file cannot be read, or are no pair of certificate and key in PEM")
		}
		t.Certificates = []tls.Certificate{pair}
	}
	c.driver.TLSConfig = t
}

// fix sets what is not to be chosen.
func (c *config) fix() error {
	d := &c.driver
	d.ContextTimeoutEnabled = true
	if d.Protocol == 0 {
		d.Protocol = 2 // nothing of 3 is needed, and every server speaks it
	}
	d.MaxActiveConns = d.PoolSize
	d.PipelinePoolSize = -1 // pipelines take a connection like everything else
	d.DialerRetries = 1     // the callers come again
	d.DisableIdentity = true
	d.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if d.MaxRetries == 0 {
		d.MaxRetries = -1 // 0 is the driver's default, 3
	}
	if d.MinIdleConns > d.PoolSize || d.MaxIdleConns > d.PoolSize {
		return fmt.Errorf("redis: ProviderConfig: min_idle_conns and max_idle_conns may not be more than pool_size, %d", d.PoolSize)
	}
	return nil
}

// dial makes the client, which dials when it is used. connected is asked about
// each new connection to a server that keeps records.
func (c *config) dial(connected func(context.Context, *redis.Conn) error) redis.UniversalClient {
	c.driver.OnConnect = connected
	switch {
	case c.driver.MasterName != "":
		return redis.NewFailoverClient(c.driver.Failover())
	case c.cluster:
		o := c.driver.Cluster()
		o.DisableRoutingPolicies = true // each command has one key; COMMAND need not be allowed
		return redis.NewClusterClient(o)
	default:
		return redis.NewClient(c.driver.Simple())
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// values are the options of a URL. Errors name options and never what they are
// set to.
type values struct {
	query url.Values
	known []string
	err   error
}

func (v *values) fail(format string, args ...any) {
	if v.err == nil {
		v.err = fmt.Errorf("redis: ProviderConfig: "+format, args...)
	}
}

func (v *values) take(name string) []string {
	all := v.query[name]
	delete(v.query, name)
	v.known = append(v.known, name)
	return all
}

// one returns the value of an option that may be given once.
func (v *values) one(name string) (value string, given bool) {
	all := v.take(name)
	if len(all) > 1 {
		v.fail("%s is given %d times", name, len(all))
	}
	if len(all) != 1 {
		return "", false
	}
	return all[0], true
}

func (v *values) text(name string, to *string) {
	if value, given := v.one(name); given {
		*to = value
	}
}

func (v *values) flag(name string, to *bool) {
	if value, given := v.one(name); given {
		b, err := strconv.ParseBool(value)
		if err != nil {
			v.fail("%s is neither true nor false", name)
		}
		*to = b
	}
}

func (v *values) number(name string, to *int, least, most int) {
	if value, given := v.one(name); given {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			v.fail("%s must be a number from %d to %d", name, least, most)
		}
		*to = n
	}
}

// duration takes "1.5s", or a number of seconds as the driver does. Waiting
// without end is not to be had.
func (v *values) duration(name string, to *time.Duration) {
	if value, given := v.one(name); given {
		d, err := time.ParseDuration(value)
		if err != nil {
			var n int
			n, err = strconv.Atoi(value)
			d = time.Duration(n) * time.Second
		}
		if err != nil || d < time.Millisecond || d > 24*time.Hour {
			v.fail("%s must be from 1ms to 24h", name)
		}
		*to = d
	}
}

// end reports what went wrong, or that there are options nobody knows.
func (v *values) end() error {
	if v.err == nil && len(v.query) > 0 {
		slices.Sort(v.known)
		v.fail("an option is unknown (known: %s)", strings.Join(v.known, ", "))
	}
	return v.err
}
