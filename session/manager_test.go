package session_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// A world is a manager over a memory store, with one clock that is set by hand
// and a count of the writes that reading causes.
type world struct {
	*session.Manager
	kept    session.Provider
	mu      sync.Mutex
	now     time.Time
	touches atomic.Int32
	fail    atomic.Pointer[error]
	meet    func() // runs once, between the next read and what follows from it
}

func newWorld(t *testing.T, cfg session.ManagerConfig) *world {
	w := &world{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	store, err := memory.New(memory.Options{Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	w.kept, cfg.Now = store, w.clock
	if w.Manager, err = session.ManagerOf(w.store(), &cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); store.Close() })
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// watched counts touches and fails on demand.
type watched struct {
	session.Provider
	w *world
}

func (w *world) store() session.Provider { return watched{w.kept, w} }

func (p watched) Touch(ctx context.Context, key string, version uint64, ttl time.Duration) (bool, error) {
	p.w.touches.Add(1)
	return p.Provider.Touch(ctx, key, version, ttl)
}

func (p watched) Get(ctx context.Context, key string) (session.Record, error) {
	if err := p.w.fail.Load(); err != nil {
		return session.Record{}, *err
	}
	r, err := p.Provider.Get(ctx, key)
	if f := p.w.meet; f != nil {
		p.w.meet = nil
		f()
	}
	return r, err
}

func set(t *testing.T, m *session.Manager, id, name string, v any) {
	t.Helper()
	if err := m.Put(id, name, v); err != nil {
		t.Fatal(err)
	}
}

func TestIdleLifetimeSlides(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{Maxlifetime: 800})
	set(t, w.Manager, "peer", "user", "kkk")
	for range 80 { // 80 reads, ten within each eighth of the lifetime
		w.advance(10 * time.Second)
		if got := w.GetString("peer", "user"); got != "kkk" {
			t.Fatalf("the session in use is gone")
		}
	}
	if n := w.touches.Load(); n < 7 || n > 9 {
		t.Errorf("80 reads have touched the record %d times, want about once per 100 s", n)
	}
	w.advance(801 * time.Second)
	if w.Get("peer", "user") != nil {
		t.Error("an idle session is visible")
	}
	if n, err := w.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
}

func TestAbsoluteLifetime(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{Maxlifetime: 100, AbsoluteLifetime: 1000})
	set(t, w.Manager, "peer", "user", "kkk")
	for i := range 99 {
		w.advance(10 * time.Second)
		if w.Get("peer", "user") == nil {
			t.Fatalf("gone after %d s", 10*(i+1))
		}
		set(t, w.Manager, "peer", "n", i)
	}
	view := w.Session("peer")
	if _, err := view.Get(t.Context(), "user"); err != nil {
		t.Fatal(err)
	}
	w.advance(10 * time.Second)
	if w.Get("peer", "user") != nil {
		t.Error("visible after its absolute end")
	}
	if n, err := w.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("the store still counts it: %d, %v", n, err)
	}
	if err := view.Set(t.Context(), "user", "x"); !errors.Is(err, session.ErrEnded) {
		t.Errorf("Set through a view of the old session: %v", err)
	}
	set(t, w.Manager, "peer", "user", "new")
	w.advance(99 * time.Second)
	if got := w.GetString("peer", "user"); got != "new" {
		t.Errorf("the next session has %q", got)
	}
	if w.Get("peer", "n") != nil {
		t.Error("the next session has a field of the one before")
	}
}

// A manager whose clock is ahead of the store's finds the record still there.
func TestAbsoluteEndBeforeTheStores(t *testing.T) {
	store, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ahead := func() time.Time { return time.Now().Add(2 * time.Hour) }
	early, _ := session.ManagerOf(store, &session.ManagerConfig{AbsoluteLifetime: 3600})
	late, _ := session.ManagerOf(store, &session.ManagerConfig{AbsoluteLifetime: 3600, Now: ahead})
	defer early.Close()
	defer late.Close()
	set(t, early, "peer", "user", "old")
	if late.Get("peer", "user") != nil {
		t.Error("visible after its end")
	}
	set(t, late, "peer", "other", "new")
	if late.Get("peer", "user") != nil || late.GetString("peer", "other") != "new" {
		t.Error("the new session is not one")
	}
}

func TestDestroyThenSetInOneRequest(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{})
	ctx := t.Context()
	set(t, w.Manager, "peer", "user", "old")
	s := w.Session("peer")
	if _, err := s.Get(ctx, "user"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Destroy(ctx), s.Destroy(ctx), s.Set(ctx, "user", "new")); err != nil {
		t.Fatal(err)
	}
	if got, err := session.Get[string](ctx, w.Session("peer"), "user"); got != "new" || err != nil {
		t.Errorf("user is %q, %v", got, err)
	}
	if err := w.Destroy("peer"); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete("peer", "user"); err != nil {
		t.Errorf("Delete without a session: %v", err)
	}
	if n, _ := w.Count(ctx); n != 0 {
		t.Error("Delete has made a session")
	}
}

// Each other change falls between the read and the write of a Set.
func TestSetMeets(t *testing.T) {
	for _, c := range []struct {
		name  string
		there bool // a session before it
		other func(m *session.Manager) error
		err   error
		left  map[string]any // afterwards
	}{
		{"Set", true, func(m *session.Manager) error { return m.Put("peer", "b", 2) }, nil, map[string]any{"user": "kkk", "a": 1, "b": 2}},
		{"first Set", false, func(m *session.Manager) error { return m.Put("peer", "b", 2) }, nil, map[string]any{"user": nil, "a": 1, "b": 2}},
		{"Destroy", true, func(m *session.Manager) error { return m.Destroy("peer") }, session.ErrEnded, map[string]any{"user": nil, "a": nil}},
		{"Destroy of none", false, func(m *session.Manager) error { return m.Destroy("peer") }, nil, map[string]any{"user": nil, "a": 1}},
		{"Destroy and Set", true, func(m *session.Manager) error { return errors.Join(m.Destroy("peer"), m.Put("peer", "b", 2)) },
			session.ErrEnded, map[string]any{"user": nil, "a": nil, "b": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, session.ManagerConfig{})
			if c.there {
				set(t, w.Manager, "peer", "user", "kkk")
			}
			w.meet = func() {
				if err := c.other(w.Manager); err != nil {
					t.Error(err)
				}
			}
			if err := w.Session("peer").Set(t.Context(), "a", 1); !errors.Is(err, c.err) {
				t.Errorf("Set: %v, want %v", err, c.err)
			}
			for name, want := range c.left {
				if got := w.Get("peer", name); got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
		})
	}
}

func TestPrefixesAreApart(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{SessionIDPrefix: "a"})
	other, err := session.ManagerOf(w.kept, &session.ManagerConfig{SessionIDPrefix: "ab", Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	set(t, w.Manager, "bc", "x", 1)
	set(t, other, "c", "x", 2)
	if got := w.Get("bc", "x"); got != 1 {
		t.Errorf("the one reads the other's session: %v", got)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := other.Get("c", "x"); got != 2 {
		t.Errorf("the one flushed the other's session: %v", got)
	}
}

func TestAll(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{SessionIDPrefix: "a/b"})
	want := []string{"", "/", "a", "b c", "é"}[1:]
	for _, id := range want {
		set(t, w.Manager, id, "x", 1)
	}
	var got []string
	for after := ""; ; {
		page, err := w.All(t.Context(), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if len(page) < 3 {
			break
		}
		after = page[2]
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("All = %q, want %q", got, want)
	}
}

func TestStoreCannotAnswer(t *testing.T) {
	var logged bytes.Buffer
	w := newWorld(t, session.ManagerConfig{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	set(t, w.Manager, "peer", "user", "kkk")
	away := errors.New("connection refused")
	w.fail.Store(&away)
	if err := w.Put("peer", "user", 1); !errors.Is(err, away) {
		t.Errorf("Put: %v", err)
	}
	if _, err := w.Session("peer").Get(t.Context(), "user"); !errors.Is(err, away) || errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if w.Get("peer", "user") != nil || !strings.Contains(logged.String(), "connection refused") {
		t.Errorf("the short Get was not logged: %s", logged.String())
	}
	w.fail.Store(nil)
	if got := w.GetString("peer", "user"); got != "kkk" {
		t.Errorf("after recovery: %q", got)
	}
}

func TestCorruptSession(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{})
	ctx := t.Context()
	set(t, w.Manager, "peer", "user", "kkk")
	keys, _ := w.kept.List(ctx, session.UserPrefix, "", 1)
	r, _ := w.kept.Get(ctx, keys[0])
	newer := append([]byte{99}, r.Value[1:]...)
	for _, junk := range [][]byte{nil, {1}, newer, append(slices.Clone(r.Value), 0xff), r.Value[:len(r.Value)-1]} {
		if err := w.kept.Put(ctx, keys[0], junk, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Put("peer", "other", 1); !errors.Is(err, session.ErrCorrupt) {
			t.Errorf("Set over %x: %v", junk, err)
		}
		if _, err := w.Session("peer").Get(ctx, "other"); !errors.Is(err, session.ErrCorrupt) {
			t.Errorf("Get in %x: %v", junk, err)
		}
	}
	if err := w.Destroy("peer"); err != nil {
		t.Fatal(err)
	}
	set(t, w.Manager, "peer", "user", "new")
}

func TestSessionTooLarge(t *testing.T) {
	w := newWorld(t, session.ManagerConfig{MaxSessionBytes: 1000})
	set(t, w.Manager, "peer", "a", make([]byte, 500))
	if err := w.Put("peer", "b", make([]byte, 500)); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("Put: %v, want ErrTooLarge", err)
	}
	if b, _ := w.Get("peer", "a").([]byte); len(b) != 500 {
		t.Error("the session was damaged")
	}
	set(t, w.Manager, "peer", "a", make([]byte, 600))
}

func TestGC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session.RegisterOnce("memory", memory.Open)
		m, err := session.NewManager(t.Context(), "memory", &session.ManagerConfig{Gclifetime: 10, Maxlifetime: 5})
		if err != nil {
			t.Fatal(err)
		}
		go m.GC()
		go m.GC() // a second one is of no use and does no harm
		for i := range 2500 {
			set(t, m, strings.Repeat("x", 1+i%900)+string(rune('a'+i/900)), "n", i)
		}
		store := m.Provider().(*memory.Store)
		if n := store.Len(); n != 2500 {
			t.Fatalf("%d records", n)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if n := store.Len(); n != 0 {
			t.Errorf("%d records after a sweep", n)
		}
		if err := errors.Join(m.Close(), m.Close()); err != nil {
			t.Error(err)
		}
		m.GC() // returns at once
		ctx := context.Background()
		s := m.Session("peer")
		_, errGet := s.Get(ctx, "a")
		_, errCount := m.Count(ctx)
		for _, err := range []error{errGet, errCount, s.Set(ctx, "a", 1), s.Delete(ctx, "a"), s.Destroy(ctx), m.Put("a", "b", 1), m.Flush(ctx)} {
			if !errors.Is(err, session.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		if _, err := store.Get(ctx, "a"); !errors.Is(err, session.ErrClosed) {
			t.Errorf("the store that NewManager opened is still open: %v", err)
		}
	})
}

func TestEscapeKey(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"", ""}, {"5KQwrPbwdL6PhXujxW37FSSQZ1JiwsST4cqQzDeyXtP79zkvFC", "5KQwrPbwdL6PhXujxW37FSSQZ1JiwsST4cqQzDeyXtP79zkvFC"},
		{"../a b", "%2E%2E%2Fa%20b"}, {"%2E", "%252E"}, {"a+b\x00\xff", "a%2Bb%00%FF"}, {"-_~", "-_~"},
	} {
		if got := session.EscapeKey(c.in); got != c.out {
			t.Errorf("EscapeKey(%q) = %q, want %q", c.in, got, c.out)
		}
		if back, err := session.UnescapeKey(c.out); back != c.in || err != nil {
			t.Errorf("UnescapeKey(%q) = %q, %v", c.out, back, err)
		}
	}
	if got := session.EscapeKey(strings.Repeat("/", 1<<20)); len(got) <= session.MaxKeyLen || len(got) > 4*session.MaxKeyLen {
		t.Errorf("a long string is escaped to %d bytes", len(got))
	}
	if _, err := session.UnescapeKey("%zz"); !errors.Is(err, session.ErrKey) {
		t.Errorf("UnescapeKey of junk: %v", err)
	}
}
