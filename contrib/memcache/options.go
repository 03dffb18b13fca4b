package memcache

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/owtp-go/owtp/session"
)

const (
	defaultPrefix = "owtp:"

	// 32 operations at one time are 100,000 a second in one network; more
	// connections would wait for the same server.
	defaultPoolSize = 32
	maxPoolSize     = 1024

	// defaultTimeout is how long one operation may take: a server in the same
	// network answers within a millisecond or is away.
	defaultTimeout = 2 * time.Second

	// defaultMaxValue is what fits into an item of 1 MiB, which is a server's
	// limit unless it was started with -I, together with the key and heads.
	defaultMaxValue = 1<<20 - 4<<10

	maxPrefix  = 100
	maxServers = 1000
)

// Options say where the servers are. The zero value of all but Servers is the
// default.
type Options struct {
	// Servers are addresses: host:port, or the path of a Unix socket.
	Servers []string

	// Prefix begins every key and keeps apart what shares the servers. It has
	// up to 100 printable ASCII characters; "" means "owtp:".
	Prefix string

	// PoolSize is how many operations are under way at one time, with as many
	// connections to each server; 0 means 32, at most 1024.
	PoolSize int

	// Timeout bounds one operation, dialling included; 0 means 2 s. The
	// operation's context may end it earlier.
	Timeout time.Duration

	// MaxValue is the longest value in bytes; 0 means 1,044,480, which fits
	// into the item of 1 MiB that servers take by default. Servers that were
	// started with another -I take 4 KiB less than that says.
	MaxValue int
}

func (o Options) checked() (Options, error) {
	o.Servers = slices.Clone(o.Servers)
	slices.Sort(o.Servers)
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return o, fmt.Errorf("memcache: %d servers are given; 1 to %d are possible", len(o.Servers), maxServers)
	}
	for i, address := range o.Servers {
		if i > 0 && address == o.Servers[i-1] {
			return o, fmt.Errorf("memcache: server %q is given twice", address)
		}
		if strings.Contains(address, "/") {
			continue
		}
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return o, fmt.Errorf("memcache: %q is no address: host:port, or the path of a socket", address)
		}
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if len(o.Prefix) > maxPrefix || strings.ContainsFunc(o.Prefix, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return o, fmt.Errorf("memcache: the prefix %.120q is not up to %d printable ASCII characters", o.Prefix, maxPrefix)
	}
	if o.PoolSize == 0 {
		o.PoolSize = defaultPoolSize
	}
	if o.PoolSize < 1 || o.PoolSize > maxPoolSize {
		return o, fmt.Errorf("memcache: PoolSize is %d, not within 1 and %d", o.PoolSize, maxPoolSize)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Timeout < 0 {
		return o, fmt.Errorf("memcache: Timeout is %v", o.Timeout)
	}
	if o.MaxValue == 0 {
		o.MaxValue = defaultMaxValue
	}
	if o.MaxValue < 1024 || o.MaxValue > session.MaxValueLen {
		return o, fmt.Errorf("memcache: MaxValue is %d, not within 1024 and %d", o.MaxValue, session.MaxValueLen)
	}
	return o, nil
}

// Open is the [session.Opener] of this package. ProviderConfig is the servers'
// addresses with commas in between, which parameters may follow, as in
//
//	10.0.0.1:11211,10.0.0.2:11211?prefix=shop:&timeout=1s&pool_size=64&max_value=1044480
func Open(ctx context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
	var o Options
	if cfg != nil {
		var err error
		if o, err = parse(cfg.ProviderConfig); err != nil {
			return nil, err
		}
	}
	s, err := New(ctx, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func parse(config string) (o Options, err error) {
	list, query, _ := strings.Cut(config, "?")
	for address := range strings.SplitSeq(list, ",") {
		if address = strings.TrimSpace(address); address != "" {
			o.Servers = append(o.Servers, address)
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return o, fmt.Errorf("memcache: ProviderConfig: %w", err)
	}
	for name, v := range values {
		if len(v) != 1 || v[0] == "" {
			return o, fmt.Errorf("memcache: ProviderConfig: %q needs one value", name)
		}
		switch name {
		case "prefix":
			o.Prefix = v[0]
		case "timeout":
			if o.Timeout, err = time.ParseDuration(v[0]); err == nil && o.Timeout <= 0 {
				err = fmt.Errorf("%v is not positive", o.Timeout)
			}
		case "pool_size":
			o.PoolSize, err = positive(v[0])
		case "max_value":
			o.MaxValue, err = positive(v[0])
		default:
			return o, fmt.Errorf("memcache: ProviderConfig: unknown %q (known: max_value, pool_size, prefix, timeout)", name)
		}
		if err != nil {
			return o, fmt.Errorf("memcache: ProviderConfig: %s: %w", name, err)
		}
	}
	return o, nil
}

func positive(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && n < 1 {
		err = fmt.Errorf("%d is not positive", n)
	}
	return n, err
}
