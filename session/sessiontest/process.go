package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

const (
	processes = 3
	counts    = 20 // what each process adds to a common counter
	noWinner  = "none"
)

// testProcesses races three processes that share one store.
func testProcesses(t *testing.T, o Options, run string) {
	config := o.Config(t)
	p, err := o.Connect(t.Context(), config)
	must(t, err)
	s := newStore(t, p, o)
	var others []*child
	for range processes {
		others = append(others, startChild(t, run, config))
	}
	all := func(command, key string) (answers []string) {
		for _, c := range others {
			c.send(t, command+" "+strconv.Quote(key))
		}
		for _, c := range others {
			answers = append(answers, c.hear(t))
		}
		return answers
	}
	race := func(t *testing.T, key string) {
		t.Helper()
		winner := noWinner
		for _, a := range all("race", key) {
			switch {
			case strings.HasPrefix(a, "error"):
				t.Fatal(a)
			case a != noWinner && winner != noWinner:
				t.Fatalf("two processes have stored %q: %s and %s", key, winner, a)
			case a != noWinner:
				winner = a
			}
		}
		if winner == noWinner {
			t.Fatalf("no process has stored %q", key)
		}
		s.wantValue(t, key, winner)
	}
	t.Run("PutIfAbsentOneWins", func(t *testing.T) {
		for i := range 20 {
			race(t, s.key(strconv.Itoa(i)))
		}
	})
	t.Run("PutIfAbsentOneWinsOverExpired", func(t *testing.T) {
		const rounds = 5
		for i := range rounds {
			must(t, s.Put(t.Context(), s.key("old"+strconv.Itoa(i)), []byte("old"), o.TTL))
		}
		for i := range rounds {
			s.waitGone(t, s.key("old"+strconv.Itoa(i)), o.TTL)
			race(t, s.key("old"+strconv.Itoa(i)))
		}
	})
	t.Run("CompareAndSwapLosesNothing", func(t *testing.T) {
		k := s.key("counter")
		must(t, s.Put(t.Context(), k, []byte("0"), time.Hour))
		for _, a := range all("count", k) {
			if a != "ok" {
				t.Fatal(a)
			}
		}
		s.wantValue(t, k, strconv.Itoa(processes*counts))
	})
	for _, c := range others {
		c.end(t)
	}
}

// race offers a value from many goroutines and returns the one that was stored,
// noWinner, or what went wrong.
func (s *store) race(key string) string {
	var mu sync.Mutex
	answer := noWinner
	me := unique()
	together(16, func(i int) {
		value := me + "/" + strconv.Itoa(i)
		v, err := s.PutIfAbsent(context.Background(), key, []byte(value), time.Hour)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			answer = "error: " + err.Error()
		case v != 0 && answer != noWinner:
			answer = "error: two winners in one process: " + answer + ", " + value
		case v != 0:
			answer = value
		}
	})
	return answer
}

// count adds n to a counter, one at a time.
func (s *store) count(key string, n int) string {
	ctx := context.Background()
	for n > 0 {
		r, err := s.Get(ctx, key)
		if err != nil {
			return "Get: " + err.Error()
		}
		old, err := strconv.Atoi(string(r.Value))
		if err != nil {
			return err.Error()
		}
		v, err := s.CompareAndSwap(ctx, key, r.Version, []byte(strconv.Itoa(old+1)), time.Hour)
		if err != nil {
			return "CompareAndSwap: " + err.Error()
		}
		if v != 0 {
			n--
		}
	}
	return "ok"
}

// testKilled kills a process again and again while it writes: what it was told
// is stored is there. Only one process has the store open at a time, so that
// this is for embedded stores too.
func testKilled(t *testing.T, o Options, run string) {
	const rounds, least = 4, 150
	config := o.Config(t)
	said := make(map[string]string) // by key: the value, or "" for deleted
	for round := range rounds {
		c := startChild(t, run, config)
		c.send(t, "write "+strconv.Quote(fmt.Sprintf("t/killed/%s/%d/", unique(), round)))
		for range least + round*17 {
			line := c.hear(t)
			key, value, ok := strings.Cut(line, " ")
			if !ok || key == "error" {
				t.Fatal(line)
			}
			said[key] = value
		}
		c.kill()
		p, err := o.Connect(t.Context(), config)
		if err != nil {
			t.Fatalf("opening the store after a crash: %v", err)
		}
		s := &store{Provider: p, o: o}
		for key, value := range said {
			if value == "" {
				s.wantAbsent(t, key)
			} else {
				s.wantValue(t, key, value)
			}
		}
		must(t, p.Close())
	}
}

// writeUntilKilled changes records in many goroutines and says what each key
// has come to once the store has confirmed it.
func (s *store) writeUntilKilled(prefix string) {
	var out sync.Mutex
	say := func(key, value string) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(says + key + " " + value)
	}
	var failed atomic.Bool
	together(16, func(w int) {
		for n := 0; !failed.Load(); n++ {
			key := prefix + strconv.Itoa(w) + "/" + strconv.Itoa(n)
			value, err := s.life(key, n)
			if err != nil {
				failed.Store(true)
				say("error", err.Error())
				return
			}
			say(key, value)
		}
	})
}

// life makes a record, changes it, and removes every third.
func (s *store) life(key string, n int) (value string, err error) {
	ctx := context.Background()
	v, err := s.PutIfAbsent(ctx, key, []byte("first"), time.Hour)
	if err != nil || v == 0 {
		return "", fmt.Errorf("PutIfAbsent: %d, %w", v, err)
	}
	if v, err = s.CompareAndSwap(ctx, key, v, []byte("second"), time.Hour); err != nil || v == 0 {
		return "", fmt.Errorf("CompareAndSwap: %d, %w", v, err)
	}
	if n%3 == 0 {
		return "", s.Delete(ctx, key)
	}
	return "second", nil
}

// testReopened closes the store and opens it again.
func testReopened(t *testing.T, o Options) {
	ctx, config := t.Context(), o.Config(t)
	open := func() *store {
		p, err := o.Connect(ctx, config)
		if err != nil {
			t.Fatalf("opening the store: %v", err)
		}
		return newStore(t, p, o)
	}
	s := open()
	prefix := s.prefix
	again := func() { must(t, s.Close()); s = open(); s.prefix = prefix }

	must(t, s.Put(ctx, s.key("ever"), []byte("ever"), 0))
	must(t, s.Put(ctx, s.key("hour"), []byte("hour"), time.Hour))
	must(t, s.Put(ctx, s.key("deleted"), []byte("old"), 0))
	must(t, s.Put(ctx, s.key("short"), []byte("old"), o.TTL))
	must(t, s.Put(ctx, s.key("empty"), nil, time.Hour))
	ever, deleted := s.wantValue(t, s.key("ever"), "ever"), s.wantValue(t, s.key("deleted"), "old")
	must(t, s.Delete(ctx, s.key("deleted")))
	s.waitGone(t, s.key("short"), o.TTL)
	must(t, s.Put(ctx, s.key("short2"), []byte("old"), o.TTL))

	again()
	s.wantValue(t, s.key("empty"), "")
	if r := s.wantValue(t, s.key("ever"), "ever"); r.Version != ever.Version || r.TTL != 0 {
		t.Errorf("version %d and TTL %v after opening again, were %d and never", r.Version, r.TTL, ever.Version)
	}
	if r := s.wantValue(t, s.key("hour"), "hour"); r.TTL <= 0 || r.TTL > time.Hour+slack {
		t.Errorf("TTL is %v after opening again, want up to an hour", r.TTL)
	}
	s.wantAbsent(t, s.key("deleted"))
	s.wantAbsent(t, s.key("short"))
	s.waitGone(t, s.key("short2"), o.TTL)
	s.oneWins(t, s.key("short2"))
	// A change that began before is still refused or taken by its version.
	v, err := s.PutIfAbsent(ctx, s.key("deleted"), []byte("new"), time.Hour)
	must(t, err)
	if v == 0 || v == deleted.Version {
		t.Errorf("version %d is used again after opening again", v)
	}
	if v, err := s.CompareAndSwap(ctx, s.key("deleted"), deleted.Version, []byte("late"), 0); v != 0 || err != nil {
		t.Errorf("CompareAndSwap of what was deleted before: %d, %v", v, err)
	}
	if v, err := s.CompareAndSwap(ctx, s.key("ever"), ever.Version, []byte("new"), time.Hour); v == 0 || err != nil {
		t.Errorf("CompareAndSwap of what was read before: %d, %v", v, err)
	}

	cfg := session.ManagerConfig{SessionIDPrefix: unique(), StoreKey: []byte(storeKey)}
	m, err := session.ManagerOf(s.Provider, &cfg)
	must(t, err)
	must(t, m.Put("peer", "user", sampleAccount()))
	must(t, session.RegisterType(sampleAccount()))
	must(t, errors.Join(m.Destroy("other"), m.Close()))
	again()
	m, err = session.ManagerOf(s.Provider, &cfg)
	must(t, err)
	defer m.Close()
	if got, err := session.Get[Account](ctx, m.Session("peer"), "user"); err != nil || got.Name != "alice" {
		t.Errorf("a session after opening again: %+v, %v", got, err)
	}
}
