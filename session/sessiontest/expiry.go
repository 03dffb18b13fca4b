package sessiontest

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

func testExpiry(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	ttl := s.o.TTL
	start := time.Now()
	must(t, s.Put(ctx, k, []byte("1"), ttl))
	r, err := s.Get(ctx, k)
	switch {
	case err == nil:
		if r.TTL <= 0 || r.TTL > ttl+slack {
			t.Errorf("TTL is %v, want up to %v", r.TTL, ttl)
		}
	case time.Since(start) < ttl:
		t.Fatalf("gone before its time: %v", err)
	}
	s.waitGone(t, k, ttl)
	if lived := time.Since(start); lived < ttl {
		t.Errorf("gone after %v, its ttl is %v", lived, ttl)
	}
	// A ttl below what the store counts in is rounded up, not to "never".
	must(t, s.Put(ctx, k, []byte("1"), 1))
	s.waitGone(t, k, 1)
}

func testExpiredIsAbsent(t *testing.T, s *store) {
	k := s.key("a")
	must(t, s.Put(t.Context(), k, []byte("1"), s.o.TTL))
	r, err := s.Get(t.Context(), k)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	s.waitGone(t, k, s.o.TTL)
	s.checkGone(t, k, r.Version)
	s.manyGone(t, s.o.TTL, func() { time.Sleep(s.o.TTL + slack/10) })
}

// manyGone lets many records expire at once, so that what a store collects on
// the way of other methods is not all of them, and asks for the last ones first.
func (s *store) manyGone(t *testing.T, ttl time.Duration, wait func()) {
	t.Helper()
	const many = 1000
	ctx := t.Context()
	versions := make([]uint64, many)
	inParts(many, func(i int) {
		v, err := s.PutIfAbsent(ctx, s.key("many"+strconv.Itoa(i)), []byte("old"), ttl)
		if v == 0 || err != nil {
			t.Errorf("PutIfAbsent: %d, %v", v, err)
		}
		versions[i] = v
	})
	wait()
	for i := range 10 {
		s.waitGone(t, s.key("many"+strconv.Itoa(many-1-i)), 0)
	}
	inParts(many, func(i int) {
		k, version := s.key("many"+strconv.Itoa(many-1-i)), versions[many-1-i]
		switch i % 2 {
		case 0:
			if v, err := s.CompareAndSwap(ctx, k, version, []byte("x"), time.Hour); v != 0 || err != nil {
				t.Errorf("CompareAndSwap revived %q: %d, %v", k, v, err)
			}
		default:
			if v, err := s.PutIfAbsent(ctx, k, []byte("new"), time.Hour); v == 0 || err != nil {
				t.Errorf("PutIfAbsent over %q: %d, %v", k, v, err)
			}
		}
	})
}

// checkGone checks that an expired record, collected or not, is absent in every
// method. Nobody swept.
func (s *store) checkGone(t *testing.T, k string, version uint64) {
	t.Helper()
	ctx := t.Context()
	s.wantAbsent(t, k)
	if ok, err := s.Touch(ctx, k, version, time.Hour); ok || err != nil {
		t.Errorf("Touch revived it: %v, %v", ok, err)
	}
	if v, err := s.CompareAndSwap(ctx, k, version, []byte("x"), time.Hour); v != 0 || err != nil {
		t.Errorf("CompareAndSwap revived it: %d, %v", v, err)
	}
	if s.Traits().Lists {
		keys, err := s.List(ctx, k, "", 10)
		must(t, err)
		if len(keys) > 0 {
			t.Errorf("List shows it: %q", keys)
		}
	}
	must(t, s.Delete(ctx, k))
	s.wantAbsent(t, k)
	v, err := s.PutIfAbsent(ctx, k, []byte("new"), time.Hour)
	if v == 0 || err != nil || v == version {
		t.Errorf("PutIfAbsent: version %d, %v; the old one was %d", v, err, version)
	}
	s.wantValue(t, k, "new")
}

func testTouchExtends(t *testing.T, s *store) {
	ctx, k := t.Context(), s.key("a")
	must(t, s.Put(ctx, k, []byte("1"), time.Hour))
	r := s.wantValue(t, k, "1")
	if ok, err := s.Touch(ctx, k, r.Version, s.o.TTL); !ok || err != nil {
		t.Fatalf("Touch: %v, %v", ok, err)
	}
	s.waitGone(t, k, s.o.TTL)
	must(t, s.Put(ctx, k, []byte("2"), 20*s.o.TTL))
	r = s.wantValue(t, k, "2")
	if ok, err := s.Touch(ctx, k, r.Version, 0); !ok || err != nil {
		t.Fatalf("Touch: %v, %v", ok, err)
	}
	if r := s.wantValue(t, k, "2"); r.TTL != 0 {
		t.Errorf("TTL is %v after Touch with 0, want never", r.TTL)
	}
	must(t, s.Delete(ctx, k))
}

func runFakeClock(t *testing.T, o Options) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s *store, advance func(time.Duration))
	}{
		{"ToTheNanosecond", fakeExpiry},
		{"StepBack", fakeStepBack},
		{"Sweep", fakeSweep},
		{"SessionLifetimes", fakeLifetimes},
		{"Many", func(t *testing.T, s *store, advance func(time.Duration)) {
			s.manyGone(t, time.Hour, func() { advance(time.Hour + slack) })
		}},
		{"PutIfAbsentOneWinsOverExpired", func(t *testing.T, s *store, advance func(time.Duration)) {
			must(t, s.Put(t.Context(), s.key("a"), []byte("old"), time.Hour))
			advance(time.Hour + slack)
			s.oneWins(t, s.key("a"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, advance := o.FakeClock(t)
			test.run(t, newStore(t, p, o), advance)
		})
	}
}

func fakeExpiry(t *testing.T, s *store, advance func(time.Duration)) {
	ctx, k := t.Context(), s.key("a")
	must(t, s.Put(ctx, k, []byte("1"), time.Hour))
	must(t, s.Put(ctx, s.key("ever"), []byte("1"), 0))
	advance(time.Hour - 1)
	r := s.wantValue(t, k, "1")
	if ok, err := s.Touch(ctx, k, r.Version, time.Hour); !ok || err != nil {
		t.Fatalf("Touch: %v, %v", ok, err)
	}
	advance(time.Hour - 1)
	s.wantValue(t, k, "1")
	advance(slack)
	s.checkGone(t, k, r.Version)
	advance(100 * 365 * 24 * time.Hour)
	s.wantValue(t, s.key("ever"), "1")
}

// fakeStepBack sets the clock back: what has expired stays gone.
func fakeStepBack(t *testing.T, s *store, advance func(time.Duration)) {
	ctx := t.Context()
	must(t, s.Put(ctx, s.key("old"), []byte("1"), time.Minute))
	must(t, s.Put(ctx, s.key("long"), []byte("1"), 10*time.Hour))
	old := s.wantValue(t, s.key("old"), "1")
	advance(time.Hour)
	s.wantAbsent(t, s.key("old"))
	advance(-2 * time.Hour)
	s.wantValue(t, s.key("long"), "1")
	s.checkGone(t, s.key("old"), old.Version)
}

func fakeSweep(t *testing.T, s *store, advance func(time.Duration)) {
	ctx := t.Context()
	inParts(500, func(int) {
		if err := s.Put(ctx, s.key("s"+unique()), []byte("1"), time.Minute); err != nil {
			t.Errorf("Put: %v", err)
		}
	})
	must(t, s.Put(ctx, s.key("stays"), []byte("1"), time.Hour))
	must(t, s.Put(ctx, s.key("ever"), []byte("1"), 0))
	advance(time.Minute + slack)
	total := 0
	for {
		n, err := s.Sweep(ctx, 100)
		must(t, err)
		if n > 100 {
			t.Fatalf("Sweep removed %d, at most 100 were asked for", n)
		}
		total += n
		if n < 100 {
			break
		}
	}
	if total > 500 {
		t.Errorf("Sweep removed %d records, 500 had expired", total)
	}
	if n, err := s.Sweep(ctx, 100); n != 0 || err != nil {
		t.Errorf("a second Sweep: %d, %v", n, err)
	}
	s.wantValue(t, s.key("stays"), "1")
	s.wantValue(t, s.key("ever"), "1")
}
