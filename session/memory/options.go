package memory

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/owtp-go/owtp/session"
)

const (
	// One record per signed call lives for the call's deadline and two windows,
	// two minutes with the defaults: 2^20 records are 8,700 calls a second,
	// several times what one machine verifies.
	defaultMaxEntries = 1 << 20

	// With the overhead below, 2^20 records of 50 bytes. A node shares its
	// machine with the application; who has more to spare says so.
	defaultMaxBytes = 256 << 20

	// What an entry costs beside its key and value: the struct, its slot in
	// the map (which is up to half empty after growing) and in the heap.
	entryOverhead = 200
)

// Options bound a [Store]. The zero value is the default of everything.
type Options struct {
	// MaxEntries bounds the records; 0 means 1,048,576, or a third more than
	// MaxSessions if that is more.
	MaxEntries int

	// MaxBytes bounds keys and values with 200 bytes of overhead for each
	// record; 0 means 256 MiB.
	MaxBytes int64

	// MaxSessions bounds the records under [session.UserPrefix]; 0 means three
	// quarters of MaxEntries. They take up to three quarters of MaxBytes as
	// well: user sessions never use up the room of a node's own state, which
	// needs it to answer at all.
	MaxSessions int

	// Now replaces the clock, for tests; nil means the system's monotonic
	// clock, which setting the time does not move. If the given clock steps
	// back, the store's time stands still until it has caught up: nothing that
	// has expired comes back, and what has not lives longer.
	Now func() time.Time
}

func (o Options) checked() (Options, error) {
	if o.MaxEntries < 0 || o.MaxBytes < 0 || o.MaxSessions < 0 {
		return o, fmt.Errorf("memory: a bound is negative: %d entries, %d bytes, %d sessions", o.MaxEntries, o.MaxBytes, o.MaxSessions)
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = max(defaultMaxEntries, o.MaxSessions+o.MaxSessions/3)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = max(o.MaxEntries-o.MaxEntries/4, 1)
	}
	if o.MaxSessions > o.MaxEntries {
		return o, fmt.Errorf("memory: MaxSessions is %d, more than the %d of MaxEntries", o.MaxSessions, o.MaxEntries)
	}
	return o, nil
}

// Open is the [session.Opener] of this package. ProviderConfig is empty or of
// the form "maxEntries=1000000&maxBytes=268435456"; MaxSessions and Now are
// used. Importing the package registers nothing.
func Open(_ context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
	var o Options
	if cfg != nil {
		values, err := url.ParseQuery(cfg.ProviderConfig)
		if err != nil {
			return nil, fmt.Errorf("memory: ProviderConfig: %w", err)
		}
		for name, v := range values {
			n, err := strconv.ParseInt(v[0], 10, 64)
			if err != nil || n < 1 || len(v) > 1 || int64(int(n)) != n {
				return nil, fmt.Errorf("memory: ProviderConfig: %s needs one positive number", name)
			}
			switch name {
			case "maxEntries":
				o.MaxEntries = int(n)
			case "maxBytes":
				o.MaxBytes = n
			default:
				return nil, fmt.Errorf("memory: ProviderConfig: unknown %q (known: maxBytes, maxEntries)", name)
			}
		}
		o.MaxSessions = cfg.MaxSessions
		o.Now = cfg.Now
	}
	return New(o)
}
