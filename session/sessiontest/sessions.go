package sessiontest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// hesitant lets others in between a read and the write that follows from it,
// which a fast store hardly ever does by itself.
type hesitant struct{ session.Provider }

func (p hesitant) Get(ctx context.Context, key string) (session.Record, error) {
	r, err := p.Provider.Get(ctx, key)
	time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Microsecond))))
	return r, err
}

// testSessionFields sets many fields of one session at once: none is lost.
func testSessionFields(t *testing.T, s *store) {
	s.Provider = hesitant{s.Provider}
	m := s.manager(t, session.ManagerConfig{})
	ctx := t.Context()
	together(racers, func(i int) {
		if err := m.Session("peer").Set(ctx, strconv.Itoa(i), i); err != nil {
			t.Errorf("Set: %v", err)
		}
	})
	for i := range racers {
		if got, err := session.Get[int](ctx, m.Session("peer"), strconv.Itoa(i)); got != i || err != nil {
			t.Errorf("field %d is %d, %v", i, got, err)
		}
	}
	together(racers, func(i int) {
		if err := m.Session("peer").Delete(ctx, strconv.Itoa(i)); err != nil {
			t.Errorf("Delete: %v", err)
		}
	})
	for i := range racers {
		if _, err := m.Session("peer").Get(ctx, strconv.Itoa(i)); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("field %d after Delete: %v", i, err)
		}
	}
}

// testSessionDestroyRace writes through views that have seen a session while it
// is destroyed: it never comes back.
func testSessionDestroyRace(t *testing.T, s *store) {
	s.Provider = hesitant{s.Provider}
	m := s.manager(t, session.ManagerConfig{})
	ctx := t.Context()
	for round := range 20 {
		id := strconv.Itoa(round)
		must(t, m.Session(id).Set(ctx, "user", "alice"))
		var refused atomic.Int32
		views := make([]*session.Session, 8)
		for i := range views {
			views[i] = m.Session(id)
			_, err := views[i].Get(ctx, "user")
			must(t, err)
		}
		together(len(views)+1, func(i int) {
			if i == len(views) {
				if err := m.Session(id).Destroy(ctx); err != nil {
					t.Errorf("Destroy: %v", err)
				}
				return
			}
			for n := range 5 {
				switch err := views[i].Set(ctx, "n"+strconv.Itoa(i), n); {
				case errors.Is(err, session.ErrEnded):
					refused.Add(1)
				case err != nil:
					t.Errorf("Set: %v", err)
				}
			}
		})
		for _, v := range views {
			wantErr(t, "a late Set", v.Set(ctx, "late", true), session.ErrEnded)
			must(t, v.Delete(ctx, "user"))
		}
		if v, err := m.Session(id).Get(ctx, "user"); !errors.Is(err, session.ErrNotFound) {
			t.Fatalf("the session is back: %v, %v", v, err)
		}
		// The next request makes a new session, out of reach of the old views.
		must(t, m.Session(id).Set(ctx, "user", "bob"))
		wantErr(t, "an old view's Set", views[0].Set(ctx, "user", "alice"), session.ErrEnded)
		if _, err := views[0].Get(ctx, "user"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("an old view reads the new session: %v", err)
		}
		if got := m.GetString(id, "user"); got != "bob" {
			t.Errorf("user is %q, want bob", got)
		}
	}
}

func testSessionHostileIDs(t *testing.T, s *store) {
	m := s.manager(t, session.ManagerConfig{})
	ctx := t.Context()
	ids := append(hostileKeys(), "s/", "n/epoch")
	for _, id := range ids {
		if len(id) > 300 {
			continue // escaped it is longer than a key
		}
		for _, name := range []string{"", "user", id} {
			must(t, m.Session(id).Set(ctx, name, id))
		}
	}
	for _, id := range ids {
		if len(id) > 300 {
			wantErr(t, "Set", m.Session(id).Set(ctx, "user", 1), session.ErrKey)
			continue
		}
		if got, err := session.Get[string](ctx, m.Session(id), id); got != id || err != nil {
			t.Errorf("session %.40q has %.40q, %v", id, got, err)
		}
	}
	wantErr(t, "Get", second(m.Session("").Get(ctx, "a")), session.ErrKey)
	wantErr(t, "Get", second(m.Session(strings.Repeat("x", 1<<20)).Get(ctx, "a")), session.ErrKey)
	wantErr(t, "Set", m.Session("a").Set(ctx, strings.Repeat("x", 1<<20), 1), session.ErrKey)
	wantErr(t, "Set", m.Session("a").Set(ctx, "big", strings.Repeat("x", 1<<20)), session.ErrTooLarge)
}

func second[T any](_ T, err error) error { return err }

// testSessions makes many sessions, lists, and flushes them without touching
// anything else.
func testSessions(t *testing.T, s *store) {
	ctx := t.Context()
	m := s.manager(t, session.ManagerConfig{})
	other := s.manager(t, session.ManagerConfig{})
	must(t, other.Put("peer", "user", "carol"))
	node := session.NodePrefix + s.prefix + "epoch"
	must(t, s.Put(ctx, node, []byte("42"), 0))
	t.Cleanup(func() { s.Delete(context.Background(), node) })

	const workers = 64
	together(workers, func(w int) {
		for i := w; i < s.o.Sessions; i += workers {
			if err := m.Session("peer"+strconv.Itoa(i)).Set(ctx, "n", i); err != nil {
				t.Errorf("Set: %v", err)
				return
			}
		}
	})
	for i := 0; i < s.o.Sessions; i += 97 {
		if got, err := session.Get[int](ctx, m.Session("peer"+strconv.Itoa(i)), "n"); got != i || err != nil {
			t.Fatalf("session %d has %d, %v", i, got, err)
		}
	}
	if !s.Traits().Lists {
		wantErr(t, "Count", second(m.Count(ctx)), errors.ErrUnsupported)
		wantErr(t, "Flush", m.Flush(ctx), errors.ErrUnsupported)
		return
	}
	if n, err := m.Count(ctx); n != s.o.Sessions || err != nil {
		t.Errorf("Count = %d, %v; want %d", n, err, s.o.Sessions)
	}
	must(t, m.Flush(ctx))
	if n, err := m.Count(ctx); n != 0 || err != nil {
		t.Errorf("Count after Flush = %d, %v", n, err)
	}
	if got := other.GetString("peer", "user"); got != "carol" {
		t.Errorf("Flush reached another manager's session: %q", got)
	}
	s.wantValue(t, node, "42")
	if _, err := m.All(ctx, "", 0); err == nil {
		t.Error("All with limit 0 is no error")
	}
	must(t, m.Put("back", "at", time.Unix(0, 0)))
}
