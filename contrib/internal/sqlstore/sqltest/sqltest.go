// Package sqltest has the tests that the stores in SQL databases share, beside
// those of session/sessiontest.
package sqltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// Prefix returns a beginning for keys that no other test has.
func Prefix() string { return fmt.Sprintf("t/%016x/", rand.Uint64()) }

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Semantics checks in short what every method does, for connections that are set
// up in unusual ways.
func Semantics(t *testing.T, p session.Provider) {
	t.Helper()
	ctx, prefix := t.Context(), Prefix()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, k := range []string{"a", "A", "a ", "a\x00", "'", `\`, "\xff\xfe", "\xbf\x27 OR 1=1 --", "会", string(all)} {
		k = prefix + k
		first := must[uint64](t)(p.PutIfAbsent(ctx, k, all, time.Hour))
		if again := must[uint64](t)(p.PutIfAbsent(ctx, k, nil, time.Hour)); first == 0 || again != 0 {
			t.Fatalf("PutIfAbsent(%q): %d, then %d", k, first, again)
		}
		r := must[session.Record](t)(p.Get(ctx, k))
		if !bytes.Equal(r.Value, all) || r.Version != first || r.TTL < 59*time.Minute || r.TTL > 61*time.Minute {
			t.Fatalf("Get(%q): %q, version %d, want %d, ttl %v", k, r.Value, r.Version, first, r.TTL)
		}
		if v := must[uint64](t)(p.CompareAndSwap(ctx, k, first+1, nil, 0)); v != 0 {
			t.Fatalf("CompareAndSwap of another version: %d", v)
		}
		second := must[uint64](t)(p.CompareAndSwap(ctx, k, first, nil, 0))
		if second == 0 || must[uint64](t)(p.CompareAndSwap(ctx, k, first, nil, 0)) != 0 {
			t.Fatalf("CompareAndSwap(%q): %d", k, second)
		}
		for range 2 { // the second changes nothing in the row
			if !must[bool](t)(p.Touch(ctx, k, second, 0)) || must[bool](t)(p.Touch(ctx, k, first, 0)) {
				t.Fatalf("Touch(%q)", k)
			}
		}
		if r = must[session.Record](t)(p.Get(ctx, k)); len(r.Value) != 0 || r.Version != second || r.TTL != 0 {
			t.Fatalf("Get(%q): %+v", k, r)
		}
		// What has expired is replaced and never touched.
		if err := p.Put(ctx, k, []byte("old"), time.Microsecond); err != nil {
			t.Fatal(err)
		}
		gone(t, p, k)
		if v := must[uint64](t)(p.PutIfAbsent(ctx, k, []byte("new"), time.Microsecond)); v == 0 {
			t.Fatalf("PutIfAbsent(%q) over nothing", k)
		} else {
			for must[bool](t)(p.Touch(ctx, k, v, time.Microsecond)) {
			}
			if must[bool](t)(p.Touch(ctx, k, v, time.Hour)) || must[uint64](t)(p.CompareAndSwap(ctx, k, v, nil, time.Hour)) != 0 {
				t.Fatalf("%q was revived", k)
			}
		}
		if v := must[uint64](t)(p.PutIfAbsent(ctx, k, []byte("new"), time.Hour)); v == 0 {
			t.Fatalf("PutIfAbsent(%q) over what has expired", k)
		}
	}
	if keys := must[[]string](t)(p.List(ctx, prefix, prefix+"A", 3)); len(keys) != 3 || keys[0] != prefix+`\` || keys[1] != prefix+"a" || keys[2] != prefix+"a\x00" {
		t.Fatalf("List: %q", keys)
	}
	expiredPages(t, p, prefix+"pages/")
}

// expiredPages lists among expired records, which a page must not count.
func expiredPages(t *testing.T, p session.Provider, prefix string) {
	t.Helper()
	ctx := t.Context()
	for i := range 50 {
		ttl := time.Hour
		if i%5 != 0 {
			ttl = time.Microsecond
		}
		if err := p.Put(ctx, fmt.Sprintf("%s%02d", prefix, i), nil, ttl); err != nil {
			t.Fatal(err)
		}
	}
	gone(t, p, prefix+"49")
	if keys := must[[]string](t)(p.List(ctx, prefix, "", 7)); len(keys) != 7 || keys[6] != prefix+"30" {
		t.Fatalf("List among expired records: %q", keys)
	}
	if keys := must[[]string](t)(p.List(ctx, prefix, prefix+"30", 7)); len(keys) != 3 || keys[2] != prefix+"45" {
		t.Fatalf("the last page among expired records: %q", keys)
	}
}

func gone(t *testing.T, p session.Provider, key string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		_, err := p.Get(t.Context(), key)
		if errors.Is(err, session.ErrNotFound) {
			return
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("Get(%q): %v, want ErrNotFound", key, err)
		}
	}
}

// Pressure runs everything at once on few keys, from several pools: deadlocks and
// serialization failures are nobody's to see, one PutIfAbsent wins, and swaps
// lose nothing.
func Pressure(t *testing.T, pools ...session.Provider) {
	t.Helper()
	const workers, rounds, keys = 64, 12, 3
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	prefix := Prefix()
	var winners [rounds]atomic.Int32
	var swapped atomic.Int64
	if err := pools[0].Put(ctx, prefix+"sum", nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			p := pools[w%len(pools)]
			for n := range rounds {
				v, err := p.PutIfAbsent(ctx, fmt.Sprint(prefix, "one", n), nil, time.Hour)
				check("PutIfAbsent", err)
				if v != 0 {
					winners[n].Add(1)
				}
				k := fmt.Sprint(prefix, rand.IntN(keys))
				switch (w + n) % 8 {
				case 0:
					check("Delete", p.Delete(ctx, k))
				case 1:
					check("Put", p.Put(ctx, k, []byte(k), time.Microsecond))
				case 2:
					_, err := p.Sweep(ctx, 100)
					check("Sweep", err)
				case 3:
					_, err := p.List(ctx, prefix, "", 10)
					check("List", err)
				default:
					_, err := p.PutIfAbsent(ctx, k, []byte(k), time.Duration(rand.IntN(3))*time.Millisecond)
					check("PutIfAbsent", err)
				}
				r, err := p.Get(ctx, k)
				check("Get", err)
				if err == nil {
					_, err = p.Touch(ctx, k, r.Version, time.Millisecond)
					check("Touch", err)
				}
				if r, err = p.Get(ctx, prefix+"sum"); err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				if v, err = p.CompareAndSwap(ctx, prefix+"sum", r.Version, append(r.Value, 1), time.Hour); v != 0 {
					swapped.Add(1)
				}
				check("CompareAndSwap", err)
			}
		})
	}
	all.Wait()
	for n := range winners {
		if got := winners[n].Load(); got != 1 {
			t.Errorf("%d callers of PutIfAbsent have won", got)
		}
	}
	if r := must[session.Record](t)(pools[0].Get(t.Context(), prefix+"sum")); int64(len(r.Value)) != swapped.Load() {
		t.Errorf("%d swaps have left %d", swapped.Load(), len(r.Value))
	}
	t.Logf("%d swaps of one key by %d workers", swapped.Load(), workers)
}

// Refused checks that opening fails, says every one of the words and no secret.
func Refused(t *testing.T, name, dsn string, secrets []string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := session.Open(ctx, name, &session.ManagerConfig{ProviderConfig: dsn})
	if err == nil {
		p.Close()
		t.Errorf("it opens, want an error with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	for _, e := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprint(errors.Unwrap(err))} {
		for _, s := range secrets {
			if strings.Contains(e, s) {
				t.Errorf("the error shows %q: %s", s, e)
			}
		}
	}
}
