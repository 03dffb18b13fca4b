package file_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func open(t testing.TB, o file.Options) *file.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = newPath(t)
	}
	s, err := file.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "sub", "store.db") }

func connect(_ context.Context, path string) (session.Provider, error) {
	s, err := file.New(file.Options{Path: path})
	if err != nil {
		return nil, err
	}
	return s, nil
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
	sessiontest.Run(t, func(t *testing.T) session.Provider { return open(t, file.Options{}) }, sessiontest.Options{
		FakeClock: func(t *testing.T) (session.Provider, func(time.Duration)) {
			c := newClock()
			return open(t, file.Options{Now: c.Now}), c.advance
		},
		Full:    func(t *testing.T) session.Provider { return open(t, file.Options{MaxEntries: 50}) },
		Config:  func(t *testing.T) string { return newPath(t) },
		Connect: connect,
	})
}
