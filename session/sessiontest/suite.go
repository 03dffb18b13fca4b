// Package sessiontest is the conformance suite of session stores. A package
// that implements session.Provider calls Run in a test; a store that passes
// can stand behind a session.Manager and, if its traits allow, keep a node's
// own state.
package sessiontest

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// Options say what the suite cannot find out by itself. The zero value runs
// every test that needs nothing more.
type Options struct {
	// FakeClock opens an empty store whose time only advance moves. nil if the
	// store's clock is not ours; expiry is then tested under the real one
	// alone.
	FakeClock func(t *testing.T) (p session.Provider, advance func(time.Duration))

	// Full opens an empty store with room for 8 to 100 records of a few bytes.
	// nil if the store's bound cannot be made so small.
	Full func(t *testing.T) session.Provider

	// TTL is a short time to live that the store keeps exactly enough; 0 means
	// 50 ms. A store that counts in seconds says 1 s.
	TTL time.Duration

	// Sessions is how many sessions are made at once; 0 means 10,000.
	Sessions int

	// Config makes an empty store for one test and returns what names it to
	// another process (a DSN, a path), and Connect opens that. Stores that are
	// shared or durable must have both: the suite races three processes over a
	// shared one, and kills a process that writes into a durable one.
	//
	// The processes are this test binary, started again with the test that has
	// called Run: there, Run calls nothing but Connect. What stands before Run
	// in the test runs in each of them too, so that servers are to be started
	// in open and Config.
	Config  func(t *testing.T) string
	Connect func(ctx context.Context, config string) (session.Provider, error)
}

// slack is how long after its ttl a record may be visible at most.
const slack = 2 * time.Second

// crowded is what a machine with much else to do may add, to the store's clock
// as well as to the test's.
const crowded = time.Second

// Run runs the suite. open returns a store that the suite may fill and closes
// again; several may be open at once. A store with others' records in it is
// fine: the suite uses keys with a random beginning.
func Run(t *testing.T, open func(t *testing.T) session.Provider, o Options) {
	if o.TTL == 0 {
		o.TTL = 50 * time.Millisecond
	}
	if o.Sessions == 0 {
		o.Sessions = 10_000
	}
	if os.Getenv(childVar) == t.Name() {
		answer(t, o)
		return
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s *store)
	}{
		{"Records", testRecords},
		{"Versions", testVersions},
		{"Values", testValues},
		{"ValuesAreCopied", testValuesAreCopied},
		{"Keys", testKeys},
		{"KeysOutOfBounds", testKeysOutOfBounds},
		{"NegativeTTL", testNegativeTTL},
		{"List", testList},
		{"Cancelled", testCancelled},
		{"Expiry", testExpiry},
		{"ExpiredIsAbsent", testExpiredIsAbsent},
		{"TouchExtends", testTouchExtends},
		{"PutIfAbsentOneWins", testPutIfAbsentOneWins},
		{"PutIfAbsentOneWinsOverExpired", testPutIfAbsentOneWinsOverExpired},
		{"CompareAndSwapLosesNothing", testCompareAndSwapLosesNothing},
		{"ReadWriteDelete", testReadWriteDelete},
		{"SessionTypes", testSessionTypes},
		{"SessionUnstorable", testSessionUnstorable},
		{"SessionFieldsAtTheSameTime", testSessionFields},
		{"SessionDestroyRace", testSessionDestroyRace},
		{"SessionHostileIDs", testSessionHostileIDs},
		{"SessionLifetimes", testSessionLifetimes},
		{"Sessions", testSessions},
		{"GC", testGC},
		{"Closed", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newStore(t, open(t), o)) })
	}
	t.Run("Elsewhere", func(t *testing.T) { runElsewhere(t, open(t), o, strings.TrimSuffix(t.Name(), "/Elsewhere")) })
	if o.FakeClock != nil {
		t.Run("FakeClock", func(t *testing.T) { runFakeClock(t, o) })
	}
	if o.Full != nil {
		t.Run("Full", func(t *testing.T) { testFull(t, newStore(t, o.Full(t), o)) })
	}
}

// runElsewhere runs what the traits promise beyond this process and this life
// of the store.
func runElsewhere(t *testing.T, p session.Provider, o Options, run string) {
	traits := p.Traits()
	must(t, p.Close())
	if !traits.Shared && !traits.Durable {
		return
	}
	if o.Config == nil || o.Connect == nil {
		t.Fatalf("store %q says that it is shared or durable (%+v): set Options.Config and Options.Connect, with which that is tested", traits.Name, traits)
	}
	if traits.Shared {
		t.Run("Processes", func(t *testing.T) { testProcesses(t, o, run) })
	}
	if traits.Durable {
		t.Run("Reopened", func(t *testing.T) { testReopened(t, o) })
		t.Run("Killed", func(t *testing.T) { testKilled(t, o, run) })
	}
}

// store is a provider under test with a beginning for keys that nobody else
// uses.
type store struct {
	session.Provider
	o      Options
	prefix string
}

func newStore(t *testing.T, p session.Provider, o Options) *store {
	t.Helper()
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return &store{Provider: p, o: o, prefix: "t/" + unique() + "/"}
}

func (s *store) key(name string) string { return s.prefix + name }

// storeKey seals the suite's sessions: a manager over a store outside the process
// needs a key.
const storeKey = "the suite's key, 32 octets of it"

// manager returns a manager whose sessions nobody else has.
func (s *store) manager(t *testing.T, cfg session.ManagerConfig) *session.Manager {
	t.Helper()
	cfg.SessionIDPrefix, cfg.StoreKey = unique(), []byte(storeKey)
	cfg.StoreTimeout = 20 * time.Second // a disk that others use too may be slow, and is no failure
	m, err := session.ManagerOf(s.Provider, &cfg)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// wantValue checks that key has value and returns the record.
func (s *store) wantValue(t *testing.T, key, value string) session.Record {
	t.Helper()
	r, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%.40q): %v", key, err)
	}
	if string(r.Value) != value {
		t.Fatalf("Get(%.40q) = %.40q, want %.40q", key, r.Value, value)
	}
	if r.Version == 0 {
		t.Fatalf("Get(%.40q): version 0", key)
	}
	return r
}

func (s *store) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if r, err := s.Get(t.Context(), key); !errors.Is(err, session.ErrNotFound) {
		t.Fatalf("Get(%.40q) = %.40q, %v; want ErrNotFound", key, r.Value, err)
	}
}

// waitGone waits until key is gone, at most until a store must have dropped it.
func (s *store) waitGone(t *testing.T, key string, ttl time.Duration) {
	t.Helper()
	for end := time.Now().Add(ttl + slack + crowded); ; time.Sleep(5 * time.Millisecond) {
		_, err := s.Get(context.Background(), key)
		if errors.Is(err, session.ErrNotFound) {
			return
		}
		must(t, err)
		if time.Now().After(end) {
			t.Fatalf("%.40q is visible %v after its ttl of %v", key, slack, ttl)
		}
	}
}

func unique() string { return strconv.FormatUint(randomUint64(), 36) }
