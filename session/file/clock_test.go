package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
)

// A life is the store as it would be after a crash: a copy of the file as it is
// now, opened at another time.
func crash(t *testing.T, path string, c *testClock, jump time.Duration) *file.Store {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	later := &testClock{now: c.Now().Add(jump)}
	return open(t, file.Options{Path: copied, Now: later.Now})
}

// Whatever has told somebody that a record has expired: after a crash, and with
// the clock set back, it is not alive again.
func TestExpiredStaysGone(t *testing.T) {
	for name, see := range map[string]func(t *testing.T, s *file.Store, version uint64) error{
		"Get": func(t *testing.T, s *file.Store, _ uint64) error {
			_, err := s.Get(t.Context(), "a")
			if errors.Is(err, session.ErrNotFound) {
				return nil
			}
			return errors.New("Get finds it")
		},
		"List": func(t *testing.T, s *file.Store, _ uint64) error {
			keys, err := s.List(t.Context(), "", "", 10)
			if len(keys) > 0 {
				return errors.New("List shows it")
			}
			return err
		},
		"CompareAndSwap": func(t *testing.T, s *file.Store, version uint64) error {
			v, err := s.CompareAndSwap(t.Context(), "a", version, nil, 0)
			if v != 0 {
				return errors.New("CompareAndSwap changes it")
			}
			return err
		},
		"Touch": func(t *testing.T, s *file.Store, version uint64) error {
			ok, err := s.Touch(t.Context(), "a", version, time.Hour)
			if ok {
				return errors.New("Touch finds it")
			}
			return err
		},
		"Sweep": func(t *testing.T, s *file.Store, _ uint64) error {
			n, err := s.Sweep(t.Context(), 10)
			if n != 1 {
				return errors.New("Sweep does not remove it")
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, path := newClock(), newPath(t)
			s := open(t, file.Options{Path: path, Now: c.Now})
			version, err := s.PutIfAbsent(t.Context(), "a", []byte("1"), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := crash(t, path, c, 0).Get(t.Context(), "a"); err != nil || r.Version != version || r.TTL != time.Minute {
				t.Fatalf("before its time, after a crash: %+v, %v", r, err)
			}
			c.advance(time.Minute)
			if err := see(t, s, version); err != nil {
				t.Fatal(err)
			}
			after := crash(t, path, c, -time.Hour)
			if _, err := after.Get(t.Context(), "a"); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("it is back: %v", err)
			}
			if v, err := after.CompareAndSwap(t.Context(), "a", version, nil, 0); v != 0 || err != nil {
				t.Errorf("CompareAndSwap revives it: %d, %v", v, err)
			}
		})
	}
}

// The time while a store is closed counts as the wall clock says, but never
// backwards.
func TestTimeWhileClosed(t *testing.T) {
	for _, test := range []struct {
		closed time.Duration
		left   time.Duration // of an hour
	}{{0, time.Hour}, {10 * time.Minute, 50 * time.Minute}, {-24 * time.Hour, time.Hour}, {time.Hour, 0}} {
		c, path := newClock(), newPath(t)
		s := open(t, file.Options{Path: path, Now: c.Now})
		if !s.Traits().LastUsed.IsZero() {
			t.Errorf("a new store was last used at %v", s.Traits().LastUsed)
		}
		if err := s.Put(t.Context(), "a", nil, time.Hour); err != nil {
			t.Fatal(err)
		}
		s.Close()
		written := c.Now()
		c.advance(test.closed)
		s = open(t, file.Options{Path: path, Now: c.Now})
		if got := s.Traits().LastUsed; !got.Equal(written) {
			t.Errorf("last used at %v, want %v", got, written)
		}
		r, err := s.Get(t.Context(), "a")
		if test.left == 0 && !errors.Is(err, session.ErrNotFound) || test.left != 0 && (err != nil || r.TTL != test.left) {
			t.Errorf("closed for %v: TTL %v, %v; want %v", test.closed, r.TTL, err, test.left)
		}
		// Of a clock that goes back, the highest reading is kept.
		if err := s.Put(t.Context(), "b", nil, 0); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if c.Now().After(written) {
			written = c.Now()
		}
		if got := open(t, file.Options{Path: path, Now: c.Now}).Traits().LastUsed; !got.Equal(written) {
			t.Errorf("after %v last used at %v, want %v", test.closed, got, written)
		}
	}
}
