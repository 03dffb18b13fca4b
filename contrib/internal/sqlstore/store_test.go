package sqlstore

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

var (
	errUndone = errors.New("the server has undone it")
	errLost   = errors.New("the connection was lost")
)

// A script is a table whose next answers a test has written.
type script struct {
	Table
	errs    []error // of the statements to come; none are left: success
	rows    []Row   // what Get finds, the last one for ever
	removes []int   // what Remove reports
	calls   int
}

func (s *script) next() error {
	s.calls++
	if len(s.errs) == 0 {
		return nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return err
}

func (s *script) Insert(context.Context, string, []byte, uint64, int64) (bool, error) {
	return true, s.next()
}

func (s *script) Get(context.Context, string) (Row, error) {
	if err := s.next(); err != nil {
		return Row{}, err
	}
	row := s.rows[0]
	if len(s.rows) > 1 {
		s.rows = s.rows[1:]
	}
	return row, nil
}

func (s *script) Remove(_ context.Context, rows []Stamp) (int, error) {
	n := s.removes[0]
	s.removes = s.removes[1:]
	return n, s.next()
}

func (s *script) RolledBack(err error) bool                  { return errors.Is(err, errUndone) }
func (s *script) Explain(_ context.Context, err error) error { return err }
func (s *script) Close()                                     {}

func store(s *script) *Store { return &Store{table: s, traits: Guaranteed("script", 1<<20)} }

// TestWhatIsRunAgain: what the server has undone, and nothing else.
func TestWhatIsRunAgain(t *testing.T) {
	s := &script{errs: []error{errUndone, errUndone, errUndone}}
	if v, err := store(s).PutIfAbsent(t.Context(), "a", nil, 0); v == 0 || err != nil || s.calls != 4 {
		t.Errorf("after three deadlocks: %d, %v, %d statements", v, err, s.calls)
	}
	s = &script{errs: []error{errUndone, errLost}}
	if v, err := store(s).PutIfAbsent(t.Context(), "a", nil, 0); v != 0 || !errors.Is(err, errLost) || s.calls != 2 {
		t.Errorf("after a lost connection: %d, %v, %d statements", v, err, s.calls)
	}
	s = &script{errs: make([]error, 10_000)}
	for i := range s.errs {
		s.errs[i] = errUndone
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := store(s).PutIfAbsent(ctx, "a", nil, 0); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errUndone) {
		t.Errorf("deadlocks until the context ends: %v", err)
	}
}

// TestGoneMeanwhile: a row that was seen expired is removed before anybody is
// told, and one that somebody has written instead is read.
func TestGoneMeanwhile(t *testing.T) {
	old := Row{Version: 1, Expires: 10, Now: 11}
	s := &script{rows: []Row{old}, removes: []int{1}}
	if _, err := store(s).Get(t.Context(), "a"); !errors.Is(err, session.ErrNotFound) || len(s.removes) != 0 {
		t.Errorf("an expired row: %v, %d removals are left", err, len(s.removes))
	}
	s = &script{rows: []Row{old, {Version: 2, Expires: Never, Now: 11}}, removes: []int{0}}
	if r, err := store(s).Get(t.Context(), "a"); err != nil || r.Version != 2 || r.TTL != 0 {
		t.Errorf("a row that was written meanwhile: %+v, %v", r, err)
	}
	s = &script{rows: []Row{old}, removes: []int{1}, errs: []error{nil, errLost}}
	if _, err := store(s).Get(t.Context(), "a"); !errors.Is(err, errLost) {
		t.Errorf("an expired row that could not be removed: %v", err)
	}
}

func TestTimes(t *testing.T) {
	for ttl, want := range map[time.Duration]int64{0: 0, 1: 2, 999: 2, 1000: 2, 1001: 3, time.Second: 1_000_001, math.MaxInt64: math.MaxInt64/1000 + 2} {
		if got := micros(ttl); got != want {
			t.Errorf("micros(%d) = %d, want %d", ttl, got, want)
		}
	}
	for row, want := range map[*Row]time.Duration{
		{Expires: Never, Now: 5}: 0, {Expires: 6, Now: 5}: time.Microsecond, {Expires: Never - 1, Now: 0}: math.MaxInt64,
	} {
		if got := row.TTL(); got != want || row.Gone() {
			t.Errorf("%+v: ttl %d, want %d, gone %v", row, got, want, row.Gone())
		}
	}
	for _, row := range []Row{{Expires: 5, Now: 5}, {Expires: math.MinInt64, Now: 0}, {Expires: 0, Now: 1}} {
		if !row.Gone() {
			t.Errorf("%+v is not gone", row)
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "a": "b", "a\xff": "b", "a\xff\xff": "b", "\xff\xff": "", "a\x00": "a\x01"} {
		if got := prefixEnd(prefix); got != want {
			t.Errorf("prefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "owtp_sessions", "a1", strings.Repeat("a", 48)} {
		if err := CheckTable(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "1", "_a", "A", "a.b", "a b", "a`", `a"`, "a'", "a;", "a-", "é", "a\x00", strings.Repeat("a", 49)} {
		if CheckTable(name) == nil {
			t.Errorf("%q may stand in a statement", name)
		}
	}
	if err := CheckFormat("t", Format); err != nil {
		t.Error(err)
	}
	for comment, word := range map[string]string{"": "not this store's", Format + "1": "newer", "owtp session store, format ": "not this store's", "other": "not this store's"} {
		if err := CheckFormat("t", comment); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("a table with the comment %q: %v", comment, err)
		}
	}
}

func TestVersions(t *testing.T) {
	seen := make(map[uint64]bool)
	for range 10_000 {
		v := newVersion()
		if v == 0 || seen[v] {
			t.Fatalf("version %d", v)
		}
		seen[v] = true
	}
}
