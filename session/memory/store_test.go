package memory_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func open(t testing.TB, o memory.Options) *memory.Store {
	t.Helper()
	s, err := memory.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A testClock is set by hand.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *testClock { return &testClock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestConformance(t *testing.T) {
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, memory.Options{}) }, sessiontest.Options{
		FakeClock: func(t *testing.T) (session.Provider, func(time.Duration)) {
			c := newClock()
			return open(t, memory.Options{Now: c.Now}), c.advance
		},
		Full: func(t *testing.T) session.Provider { return open(t, memory.Options{MaxEntries: 50}) },
	})
}

func TestFullOfBytes(t *testing.T) {
	s := open(t, memory.Options{MaxBytes: 10_000})
	ctx := t.Context()
	if err := s.Put(ctx, "a", make([]byte, 5_000), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "b", make([]byte, 5_000), 0); !errors.Is(err, session.ErrFull) {
		t.Errorf("Put: %v, want ErrFull", err)
	}
	r, _ := s.Get(ctx, "a")
	if v, err := s.CompareAndSwap(ctx, "a", r.Version, make([]byte, 20_000), 0); v != 0 || !errors.Is(err, session.ErrFull) {
		t.Errorf("CompareAndSwap: %d, %v, want ErrFull", v, err)
	}
	if after, err := s.Get(ctx, "a"); err != nil || len(after.Value) != 5_000 || after.Version != r.Version {
		t.Errorf("the old record is damaged: %d bytes, %v", len(after.Value), err)
	}
	// Room is counted back exactly, however often it is taken.
	for i := range 1000 {
		if err := s.Put(ctx, "b", make([]byte, i%4_000), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(ctx, "b"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSessionsLeaveRoomForTheNode(t *testing.T) {
	s := open(t, memory.Options{MaxEntries: 100})
	ctx := t.Context()
	fill := func(prefix string) int {
		for i := 0; ; i++ {
			if err := s.Put(ctx, prefix+strconv.Itoa(i), nil, 0); err != nil {
				if !errors.Is(err, session.ErrFull) {
					t.Fatal(err)
				}
				return i
			}
		}
	}
	if n := fill(session.UserPrefix); n != 75 {
		t.Errorf("%d user sessions, want 75", n)
	}
	if n := fill(session.NodePrefix); n != 25 {
		t.Errorf("%d records of the node beside them, want 25", n)
	}
}

// Nobody sweeps and nobody reads: writers alone keep memory bounded, and what
// has expired anywhere makes room before a write is refused.
func TestBoundedWithoutSweeping(t *testing.T) {
	c := newClock()
	s := open(t, memory.Options{Now: c.Now, MaxEntries: 5_000})
	for i := range 100_000 {
		if err := s.Put(t.Context(), strconv.Itoa(i), nil, time.Second); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		c.advance(time.Millisecond)
	}
	if n := s.Len(); n > 2_000 {
		t.Errorf("%d records, 1,000 are alive", n)
	}
	full := open(t, memory.Options{Now: c.Now, MaxEntries: 100})
	for round := range 3 {
		for i := range 100 {
			if err := full.Put(t.Context(), fmt.Sprintf("%d/%d", round, i), nil, time.Second); err != nil {
				t.Fatalf("round %d, record %d: %v", round, i, err)
			}
		}
		c.advance(time.Minute)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []memory.Options{{MaxEntries: -1}, {MaxBytes: -1}, {MaxSessions: -1}, {MaxEntries: 1, MaxSessions: 2}} {
		if _, err := memory.New(o); err == nil {
			t.Errorf("New(%+v) is no error", o)
		}
	}
	if _, err := memory.New(memory.Options{MaxSessions: 10_000_000}); err != nil {
		t.Errorf("more sessions than the default: %v", err)
	}
	for config, good := range map[string]bool{
		"": true, "maxEntries=10": true, "maxEntries=10&maxBytes=1000": true,
		"maxEntries=0": false, "maxEntries=x": false, "maxEntries=1&maxEntries=2": false, "entries=1": false, "%zz": false,
	} {
		p, err := memory.Open(t.Context(), &session.ManagerConfig{ProviderConfig: config})
		if (err == nil) != good {
			t.Errorf("Open(%q): %v", config, err)
		}
		if err == nil {
			p.Close()
		}
	}
	p, err := memory.Open(t.Context(), nil)
	if err != nil || p.Traits() != (session.Traits{Name: "memory", Lists: true, MaxValue: session.MaxValueLen}) {
		t.Errorf("Open(nil): %v", err)
	}
}
