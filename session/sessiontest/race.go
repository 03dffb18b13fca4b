package sessiontest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

const racers = 64

// together runs f in n goroutines that begin at the same time.
func together(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-start
			f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

// inParts runs f for 0 to n-1 in 16 goroutines: one after the other, a store
// that waits for its disk would take minutes.
func inParts(n int, f func(i int)) {
	const parts = 16
	together(parts, func(part int) {
		for i := part; i < n; i += parts {
			f(i)
		}
	})
}

func testPutIfAbsentOneWins(t *testing.T, s *store) {
	for i := range 20 {
		s.oneWins(t, s.key(strconv.Itoa(i)))
	}
}

func testPutIfAbsentOneWinsOverExpired(t *testing.T, s *store) {
	const rounds = 5
	for i := range rounds {
		must(t, s.Put(t.Context(), s.key(strconv.Itoa(i)), []byte("old"), s.o.TTL))
	}
	for i := range rounds {
		s.waitGone(t, s.key(strconv.Itoa(i)), s.o.TTL)
		s.oneWins(t, s.key(strconv.Itoa(i)))
	}
}

func (s *store) oneWins(t *testing.T, key string) {
	t.Helper()
	var winners atomic.Int32
	var winner atomic.Value
	together(racers, func(i int) {
		me := strconv.Itoa(i)
		v, err := s.PutIfAbsent(t.Context(), key, []byte(me), time.Hour)
		if err != nil {
			t.Errorf("PutIfAbsent: %v", err)
		}
		if v != 0 {
			winners.Add(1)
			winner.Store(me)
		}
	})
	if n := winners.Load(); n != 1 {
		t.Fatalf("%d of %d callers have won", n, racers)
	}
	s.wantValue(t, key, winner.Load().(string))
}

func testCompareAndSwapLosesNothing(t *testing.T, s *store) {
	const each = 5
	ctx, k := t.Context(), s.key("counter")
	must(t, s.Put(ctx, k, []byte("0"), time.Hour))
	together(16, func(int) {
		for done := 0; done < each; {
			r, err := s.Get(ctx, k)
			if err != nil {
				t.Errorf("Get: %v", err)
				return
			}
			n, _ := strconv.Atoi(string(r.Value))
			v, err := s.CompareAndSwap(ctx, k, r.Version, []byte(strconv.Itoa(n+1)), time.Hour)
			if err != nil {
				t.Errorf("CompareAndSwap: %v", err)
				return
			}
			if v != 0 {
				done++
			}
		}
	})
	s.wantValue(t, k, strconv.Itoa(16*each))
}

// testReadWriteDelete runs all methods on few keys: no error, and never a value
// that nobody wrote.
func testReadWriteDelete(t *testing.T, s *store) {
	ctx := t.Context()
	check := func(what string, err error) {
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	together(16, func(i int) {
		for n := range 40 {
			k := s.key(strconv.Itoa(n % 4))
			value := []byte(fmt.Sprintf("%s|%d", k, i))
			switch (n + i) % 5 {
			case 0:
				check("Put", s.Put(ctx, k, value, time.Hour))
			case 1:
				check("Delete", s.Delete(ctx, k))
			case 2:
				_, err := s.PutIfAbsent(ctx, k, value, time.Hour)
				check("PutIfAbsent", err)
			default:
				r, err := s.Get(ctx, k)
				check("Get", err)
				if err != nil {
					continue
				}
				if len(r.Value) <= len(k) || string(r.Value[:len(k)]) != k {
					t.Errorf("%q has %q", k, r.Value)
				}
				_, err = s.CompareAndSwap(ctx, k, r.Version, value, time.Hour)
				check("CompareAndSwap", err)
				_, err = s.Touch(ctx, k, r.Version, time.Hour)
				check("Touch", err)
			}
		}
	})
}

// testFull fills the store: what is refused loses nothing that is kept.
func testFull(t *testing.T, s *store) {
	ctx := t.Context()
	var kept []string
	var err error
	for i := 0; err == nil; i++ {
		if i == 1000 {
			t.Fatal("the store has taken 1000 records; Options.Full is to return a smaller one")
		}
		k := s.key(strconv.Itoa(i))
		if _, err = s.PutIfAbsent(ctx, k, []byte(k), time.Hour); err == nil {
			kept = append(kept, k)
		}
	}
	wantErr(t, "PutIfAbsent", err, session.ErrFull)
	wantErr(t, "Put", s.Put(ctx, s.key("new"), []byte("1"), time.Hour), session.ErrFull)
	s.wantAbsent(t, s.key("new"))
	for _, k := range kept {
		s.wantValue(t, k, k)
	}
	// What is there can be changed and removed, and room comes back.
	r := s.wantValue(t, kept[0], kept[0])
	if v, err := s.CompareAndSwap(ctx, kept[0], r.Version, []byte("1"), time.Hour); v == 0 || err != nil {
		t.Errorf("CompareAndSwap in a full store: %d, %v", v, err)
	}
	must(t, s.Delete(ctx, kept[0]))
	must(t, s.Put(ctx, s.key("new"), []byte("1"), time.Hour))
	for _, k := range kept[1:] {
		s.wantValue(t, k, k)
	}
}
