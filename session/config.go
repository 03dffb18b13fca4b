package session

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/owtp-go/owtp/internal/atrest"
	"github.com/owtp-go/owtp/internal/loglimit"
)

const (
	defaultGCInterval = 60         // seconds: expired records go by themselves too, GC only catches up
	defaultIdle       = 3600       // seconds: an hour without a request
	defaultAbsolute   = 7 * 86_400 // seconds: nobody stays logged in for ever by polling
	maxSeconds        = 10 * 366 * 86_400

	// A session is read and written whole at each change: 64 KiB is far more
	// than who is logged in needs and still one packet's worth of time.
	defaultSessionBytes = 64 << 10

	redacted = "[redacted]"
)

// ManagerConfig says where and for how long a [Manager] keeps sessions. The
// zero value is the safe default of everything. It is copied and checked when
// it is used; changing it afterwards does nothing. However it is printed or
// logged, ProviderConfig and the keys are left out; encoding/json writes the
// first and never the keys.
type ManagerConfig struct {
	// Gclifetime is the time between two sweeps of [Manager.GC] in seconds;
	// 0 means 60.
	Gclifetime int64 `json:"gclifetime"`

	// Maxlifetime is how long a session lives that nobody uses, in seconds;
	// 0 means 3600.
	Maxlifetime int64 `json:"maxlifetime"`

	// AbsoluteLifetime is how long a session lives at most, used or not, in
	// seconds; 0 means seven days, -1 without end.
	AbsoluteLifetime int64 `json:"absoluteLifetime"`

	// ProviderConfig is the provider's own: an address, a DSN, a path, or for
	// memory "maxEntries=1000000&maxBytes=268435456". It may hold a password.
	ProviderConfig string `json:"providerConfig"`

	// SessionIDPrefix keeps managers apart that share a store: they see each
	// other's sessions if and only if their prefixes are equal. Up to 128
	// bytes.
	SessionIDPrefix string `json:"sessionIDPrefix"`

	// MaxSessions bounds the sessions in a store that lives in this process;
	// beyond it Set returns [ErrFull]. 0 means the provider's default. Stores
	// that are servers have bounds of their own and do not look at it.
	MaxSessions int `json:"maxSessions"`

	// MaxSessionBytes bounds what one session takes in the store; beyond it Set returns
	// [ErrTooLarge]. 0 means 64 KiB; at most [MaxValueLen].
	MaxSessionBytes int `json:"maxSessionBytes"`

	// StoreTimeout is how long one operation of a store outside this process
	// may take; see [Bounded]. 0 means [DefaultStoreTimeout], two seconds; at
	// most a minute. In JSON it is a number of nanoseconds.
	StoreTimeout time.Duration `json:"storeTimeout,omitempty"`

	// StoreKey, 32 bytes, seals each session for its place in the store, so
	// that who reads the store reads no session and who changes it is noticed.
	// nil means the key of the node that the manager is given to. Until it has
	// a key, a manager over a store outside this process ([Traits.Shared] or
	// Durable) refuses to read and write sessions. In a store in this process
	// sessions are sealed only if StoreKey is set. Replicas need the same.
	StoreKey []byte `json:"-"`

	// PreviousStoreKey opens what was sealed under it while StoreKey is being
	// changed; sessions are sealed anew when they are used. nil means none.
	PreviousStoreKey []byte `json:"-"`

	// InsecurePlaintext stores sessions as they are, readable and forgeable
	// for everybody who can reach the store, where no StoreKey is set. It is
	// for looking at what a program stores. false is the default.
	InsecurePlaintext bool `json:"insecurePlaintext,omitempty"`

	// Now replaces the clock, for tests, also of a store in this process; nil
	// means the system's.
	Now func() time.Time `json:"-"`

	// Logger is told what the methods without an error result had to swallow
	// and what GC met. nil means that nobody is. Of lines with one message, 64
	// are logged at once and one more every ten seconds.
	Logger *slog.Logger `json:"-"`
}

// checked returns a copy with the defaults filled in.
func (c *ManagerConfig) checked() (*ManagerConfig, error) {
	var out ManagerConfig
	if c != nil {
		out = *c
	}
	for _, f := range []struct {
		name   string
		value  *int64
		zero   int64
		lowest int64
	}{
		{"Gclifetime", &out.Gclifetime, defaultGCInterval, 1},
		{"Maxlifetime", &out.Maxlifetime, defaultIdle, 1},
		{"AbsoluteLifetime", &out.AbsoluteLifetime, defaultAbsolute, -1},
	} {
		if *f.value == 0 {
			*f.value = f.zero
		}
		if *f.value < f.lowest || *f.value > maxSeconds {
			return nil, fmt.Errorf("session: %s is %d; it must be within %d and %d seconds, or 0 for %d",
				f.name, *f.value, f.lowest, maxSeconds, f.zero)
		}
	}
	if len(out.SessionIDPrefix) > 128 {
		return nil, fmt.Errorf("session: SessionIDPrefix has %d bytes, at most 128 are allowed", len(out.SessionIDPrefix))
	}
	if out.MaxSessions < 0 {
		return nil, fmt.Errorf("session: MaxSessions is %d, it may not be negative", out.MaxSessions)
	}
	if out.MaxSessionBytes == 0 {
		out.MaxSessionBytes = defaultSessionBytes
	}
	if out.MaxSessionBytes < 256 || out.MaxSessionBytes > MaxValueLen {
		return nil, fmt.Errorf("session: MaxSessionBytes is %d; it must be within 256 and %d", out.MaxSessionBytes, MaxValueLen)
	}
	if out.StoreTimeout == 0 {
		out.StoreTimeout = DefaultStoreTimeout
	}
	if out.StoreTimeout < time.Millisecond || out.StoreTimeout > time.Minute {
		return nil, fmt.Errorf("session: StoreTimeout is %v; it must be within 1ms and 1m, or 0 for %v", out.StoreTimeout, DefaultStoreTimeout)
	}
	if err := out.checkKeys(); err != nil {
		return nil, err
	}
	out.StoreKey, out.PreviousStoreKey = slices.Clone(out.StoreKey), slices.Clone(out.PreviousStoreKey)
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	out.Logger = slog.New(loglimit.New(out.Logger.Handler()))
	return &out, nil
}

func (c *ManagerConfig) checkKeys() error {
	switch {
	case c.StoreKey == nil && c.PreviousStoreKey != nil:
		return errors.New("session: PreviousStoreKey is set without StoreKey")
	case c.StoreKey == nil:
		return nil
	case c.InsecurePlaintext:
		return errors.New("session: StoreKey and InsecurePlaintext are both set; sessions are sealed or they are not")
	}
	if err := atrest.Check(c.StoreKey, c.PreviousStoreKey); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}

// eraseKeys forgets the keys of a checked copy.
func (c *ManagerConfig) eraseKeys() {
	clear(c.StoreKey)
	clear(c.PreviousStoreKey)
	c.StoreKey, c.PreviousStoreKey = nil, nil
}

// printable has no methods, so that fmt prints its fields.
type printable ManagerConfig

func (c ManagerConfig) withoutSecrets() printable {
	if c.ProviderConfig != "" {
		c.ProviderConfig = redacted
	}
	c.StoreKey, c.PreviousStoreKey, c.Now, c.Logger = nil, nil, nil, nil
	return printable(c)
}

// Format implements [fmt.Formatter] without secrets, for every verb.
func (c ManagerConfig) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), c.withoutSecrets())
}

// String implements [fmt.Stringer] without secrets.
func (c ManagerConfig) String() string { return fmt.Sprintf("%+v", c.withoutSecrets()) }

// GoString implements [fmt.GoStringer] without secrets.
func (c ManagerConfig) GoString() string { return fmt.Sprintf("%#v", c.withoutSecrets()) }

// LogValue implements [slog.LogValuer] without secrets.
func (c ManagerConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }
