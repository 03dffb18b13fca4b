package file

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/owtp-go/owtp/session"
)

const (
	// As many records as the memory store has by default, for the same
	// reason: 8,700 recorded calls a second.
	defaultMaxEntries = 1 << 20

	// A disk has more room than memory, but the file is mapped into memory and
	// its busy part lies there.
	defaultMaxBytes = 1 << 30

	// What a record costs beside its key, which is there twice, and its value:
	// the heads of both entries and what pages leave empty.
	entryOverhead = 100

	// lockPatience is how long New waits for another process to let go of the
	// file: as long as one takes that is being replaced, not one that runs.
	lockPatience = 2 * time.Second
)

// Options say where a [Store] is and how large. The zero value of all but Path is
// the default.
type Options struct {
	// Path names the file. Its folder is made if there is none.
	Path string

	// MaxEntries bounds the records; 0 means 1,048,576, or a third more than
	// MaxSessions if that is more.
	MaxEntries int

	// MaxBytes bounds the values, the keys (which count twice) and 100 bytes
	// for each record; 0 means 1 GiB. The file has up to four times as many
	// and 128 MiB, usually much less.
	MaxBytes int64

	// MaxSessions bounds the records under [session.UserPrefix]; 0 means three
	// quarters of MaxEntries. They take up to three quarters of MaxBytes as
	// well, so that user sessions never use up the room of a node's own state.
	MaxSessions int

	// Now replaces the clock, for tests; nil means the system's. If it steps
	// back, the store's time stands still until it has caught up.
	Now func() time.Time
}

func (o Options) checked() (Options, error) {
	if o.Path == "" {
		return o, errors.New("file: no path is given")
	}
	if strings.ContainsRune(o.Path, 0) {
		return o, errors.New("file: the path has a NUL in it")
	}
	if o.MaxEntries < 0 || o.MaxBytes < 0 || o.MaxSessions < 0 {
		return o, fmt.Errorf("file: a bound is negative: %d entries, %d bytes, %d sessions", o.MaxEntries, o.MaxBytes, o.MaxSessions)
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = max(defaultMaxEntries, o.MaxSessions+o.MaxSessions/3)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxBytes > 1<<42 {
		return o, fmt.Errorf("file: MaxBytes is %d, at most 4 TiB can be mapped", o.MaxBytes)
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = max(o.MaxEntries-o.MaxEntries/4, 1)
	}
	if o.MaxSessions > o.MaxEntries {
		return o, fmt.Errorf("file: MaxSessions is %d, more than the %d of MaxEntries", o.MaxSessions, o.MaxEntries)
	}
	return o, nil
}

// Open is the [session.Opener] of this package. ProviderConfig is the file's
// path, which may be followed by bounds as in
//
//	/var/lib/wallet/owtp.db?maxEntries=1000000&maxBytes=1073741824
//
// A path with a question mark in it can be given to [New] only. MaxSessions and
// Now are used.
func Open(ctx context.Context, cfg *session.ManagerConfig) (session.Provider, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var o Options
	if cfg != nil {
		path, query, _ := strings.Cut(cfg.ProviderConfig, "?")
		values, err := url.ParseQuery(query)
		if err != nil {
			return nil, fmt.Errorf("file: ProviderConfig: %w", err)
		}
		for name, v := range values {
			n, err := strconv.ParseInt(v[0], 10, 64)
			if err != nil || n < 1 || len(v) > 1 || int64(int(n)) != n {
				return nil, fmt.Errorf("file: ProviderConfig: %s needs one positive number", name)
			}
			switch name {
			case "maxEntries":
				o.MaxEntries = int(n)
			case "maxBytes":
				o.MaxBytes = n
			default:
				return nil, fmt.Errorf("file: ProviderConfig: unknown %q (known: maxBytes, maxEntries)", name)
			}
		}
		o.Path, o.MaxSessions, o.Now = path, cfg.MaxSessions, cfg.Now
	}
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	return s, nil
}
