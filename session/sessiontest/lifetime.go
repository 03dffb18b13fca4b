package sessiontest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// testSessionLifetimes keeps one session in use and leaves another alone: the
// used one outlives its idle time and ends at its absolute one.
func testSessionLifetimes(t *testing.T, s *store) {
	const idle, absolute = 3 * time.Second, 6 * time.Second
	m := s.manager(t, session.ManagerConfig{Maxlifetime: int64(idle / time.Second), AbsoluteLifetime: int64(absolute / time.Second)})
	for range 3 {
		must(t, m.Destroy("used"))
		start := time.Now()
		must(t, m.Put("used", "user", "kkk"))
		must(t, m.Put("idle", "user", "kkk"))
		if !useUntil(t, m, start, absolute, idle) {
			continue // the test itself was away for too long
		}
		for end := start.Add(absolute + slack + crowded); ; time.Sleep(50 * time.Millisecond) {
			v, err := m.Session("used").Get(t.Context(), "user")
			if errors.Is(err, session.ErrNotFound) {
				break
			}
			must(t, err)
			if time.Now().After(end) {
				t.Fatalf("%v is visible %v after the session's absolute end", v, slack)
			}
		}
		if v, err := m.Session("idle").Get(t.Context(), "user"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("an idle session is visible after %v: %v, %v", time.Since(start), v, err)
		}
		return
	}
	t.Error("the machine is too busy to use a session twice within two seconds")
}

// useUntil reads the session up to its absolute end. It reports false if the
// session may have been idle for too long in between.
func useUntil(t *testing.T, m *session.Manager, start time.Time, absolute, idle time.Duration) bool {
	t.Helper()
	for last := start; ; time.Sleep(100 * time.Millisecond) {
		begin := time.Now()
		_, err := m.Session("used").Get(t.Context(), "user")
		now := time.Now()
		switch {
		case now.Sub(start) >= absolute-idle/8-100*time.Millisecond:
			return true // an expiry that moves in steps ends an eighth early at most
		case now.Sub(last) > idle-idle/4:
			return false
		case err != nil:
			t.Fatalf("a session in use is gone after %v: %v", now.Sub(start), err)
		}
		last = begin
	}
}

// fakeLifetimes is the same under a clock of ours.
func fakeLifetimes(t *testing.T, s *store, advance func(time.Duration)) {
	// The manager's own clock goes with the store's.
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	m := s.manager(t, session.ManagerConfig{Maxlifetime: 800, AbsoluteLifetime: 2400, Now: func() time.Time { return now }})
	pass := func(d time.Duration) { now = now.Add(d); advance(d) }
	must(t, m.Put("used", "user", "kkk"))
	must(t, m.Put("idle", "user", "kkk"))
	for at := 10; at < 2300; at += 10 { // expiry moves in steps of 100 s
		pass(10 * time.Second)
		if got := m.GetString("used", "user"); got != "kkk" {
			t.Fatalf("a session in use is gone after %d s", at)
		}
	}
	if m.Get("idle", "user") != nil {
		t.Error("a session that nobody used for 2290 s is visible; it lives for 800 s")
	}
	pass(110 * time.Second)
	if m.Get("used", "user") != nil {
		t.Error("a session is visible at its absolute end")
	}
}

// testGC runs the collector twice over records that expire, and stops it.
func testGC(t *testing.T, s *store) {
	sweeps := &countedSweeps{Provider: s.Provider}
	m, err := session.ManagerOf(sweeps, &session.ManagerConfig{Gclifetime: 1, SessionIDPrefix: unique()})
	must(t, err)
	var running sync.WaitGroup
	for range 2 {
		running.Go(m.GC)
	}
	for range 100 {
		must(t, s.Put(t.Context(), s.key(unique()), nil, s.o.TTL))
	}
	must(t, s.Put(t.Context(), s.key("stays"), []byte("1"), time.Hour))
	for end := time.Now().Add(time.Minute); sweeps.n.Load() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("GC with an interval of a second has swept less than three times in a minute")
		}
	}
	must(t, m.Close())
	running.Wait() // hangs if GC goes on
	if err := sweeps.failed.Load(); err != nil {
		t.Errorf("Sweep: %v", *err)
	}
	s.wantValue(t, s.key("stays"), "1")
}

type countedSweeps struct {
	session.Provider
	n      atomic.Int32
	failed atomic.Pointer[error]
}

func (p *countedSweeps) Sweep(ctx context.Context, max int) (int, error) {
	n, err := p.Provider.Sweep(ctx, max)
	p.n.Add(1)
	if err != nil && ctx.Err() == nil {
		p.failed.Store(&err)
	}
	return n, err
}
