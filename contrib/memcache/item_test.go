package memcache

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	driver "github.com/bradfitz/gomemcache/memcache"

	itest "github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

func TestExpiration(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	for _, c := range []struct {
		now  time.Time
		ttl  time.Duration
		want int32
	}{
		{now, 0, 0},
		{now, 1, 2},
		{now, time.Second, 2},
		{now, time.Second + 1, 3},
		{now, time.Hour, 3601},
		{now, month*time.Second - time.Second, month},
		{now, month * time.Second, 1_900_000_000 + month + 1},
		{now, 365 * 24 * time.Hour, 1_900_000_000 + 365*24*3600 + 1},
		{now, math.MaxInt64, math.MaxInt32},
		{time.Unix(math.MaxInt32-5, 0), 365 * 24 * time.Hour, month},
		{time.Unix(math.MaxInt32+5, 0), time.Hour, 3601},
		{time.Unix(math.MaxInt32+5, 0), math.MaxInt64, month},
	} {
		if got := expiration(c.now, c.ttl); got != c.want {
			t.Errorf("at %d, %v: %d, want %d", c.now.Unix(), c.ttl, got, c.want)
		}
	}
}

// Names are what servers take, whatever the key is, and differ as keys do.
func TestNames(t *testing.T) {
	s := &Store{o: Options{Prefix: strings.Repeat("p", maxPrefix)}}
	seen := make(map[string]bool)
	for _, key := range []string{"a", "A", " ", "\r\nflush_all\r\n", "\x00", strings.Repeat("k", session.MaxKeyLen), strings.Repeat("k", session.MaxKeyLen-1), "会话"} {
		name := s.name(key)
		if len(name) > 250 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || seen[name] {
			t.Errorf("%.20q has the name %q", key, name)
		}
		seen[name] = true
	}
}

func TestLeft(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		ttl  time.Duration
		end  time.Time
		want time.Duration
	}{
		{0, now, 0},
		{time.Hour, now.Add(time.Minute), time.Minute},
		{time.Hour, now.Add(2 * time.Hour), time.Hour}, // the writer's clock is ahead
		{time.Hour, now.Add(-time.Minute), time.Millisecond},
	} {
		if got := (item{ttl: c.ttl, end: c.end}).left(now); got != c.want {
			t.Errorf("%v, ends at %v: %v, want %v", c.ttl, c.end.Sub(now), got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	s := &Store{o: Options{Prefix: "owtp:"}}
	for _, value := range []string{"", "value", strings.Repeat("v", 1000)} {
		f.Add(s.encode("key", 7, []byte(value), time.Hour, time.Unix(1000, 0)).Value)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := decode("key", &driver.Item{Value: b})
		if err != nil {
			if !errors.Is(err, session.ErrCorrupt) {
				t.Errorf("%v", err)
			}
			return
		}
		again := s.encode("key", i.version, i.value, i.ttl, i.end.Add(-i.ttl)).Value
		if i.version == 0 || !slices.Equal(again, b) {
			t.Errorf("%x is read as %+v, which is written as %x", b, i, again)
		}
	})
}

// Each key has one server, whichever order they are given in; each gets its
// share, and one that goes leaves the others' where they are.
func TestServers(t *testing.T) {
	pool := func(addresses ...string) (s servers) {
		for _, a := range addresses {
			s = append(s, newServer(a))
		}
		return s
	}
	all, other, fewer := pool("a:1", "b:1", "c:1", "/run/d"), pool("c:1", "/run/d", "b:1", "a:1"), pool("a:1", "b:1", "/run/d")
	share := make(map[string]int)
	const keys = 10_000
	for i := range keys {
		name := fmt.Sprint("owtp:", i)
		at, _ := all.PickServer(name)
		if again, _ := other.PickServer(name); again != at {
			t.Fatalf("%s is at %v and at %v", name, at, again)
		}
		if left, _ := fewer.PickServer(name); at.String() != "c:1" && left != at {
			t.Fatalf("%s has moved from %v to %v", name, at, left)
		}
		share[at.String()]++
	}
	for a, n := range share {
		if n < keys/8 || n > keys/2 {
			t.Errorf("%s has %d of %d keys", a, n, keys)
		}
	}
	if len(share) != 4 {
		t.Errorf("%v", share)
	}
}

func TestParse(t *testing.T) {
	for config, good := range map[string]bool{
		"127.0.0.1:11211": true, "a:1, b:2 ,/run/m": true, "[::1]:11211?prefix=x:&timeout=1s&pool_size=3&max_value=2048": true,
		"": false, "?prefix=x": false, "host": false, "host:": false, "a:1,a:1": false, "a:1?prefix=": false, "a:1?prefix=x%20y": false,
		"a:1?prefix=" + strings.Repeat("x", 101): false, "a:1?timeout=x": false, "a:1?timeout=-1s": false, "a:1?timeout=0s": false, "a:1?pool_size=0": false,
		"a:1?pool_size=2000": false, "a:1?max_value=1": false, "a:1?max_value=99999999": false, "a:1?unknown=1": false, "a:1?%zz": false, "a:1?prefix=a&prefix=b": false,
	} {
		o, err := parse(config)
		if err == nil {
			_, err = o.checked()
		}
		if (err == nil) != good {
			t.Errorf("%q: %v", config, err)
		}
	}
}

// What somebody else has put under our name is an error, and not a record.
func TestForeignItem(t *testing.T) {
	s, err := New(t.Context(), Options{Servers: []string{itest.Memcached(t).Addr}, Prefix: fmt.Sprint("foreign", os.Getpid(), ":")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	if err := s.Put(ctx, "b", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	client := driver.New(itest.Memcached(t).Addr)
	defer client.Close()
	moved, err := client.Get(s.name("b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range [][]byte{nil, []byte("text"), moved.Value} {
		if err := client.Set(&driver.Item{Key: s.name("a"), Value: value}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "a"); !errors.Is(err, session.ErrCorrupt) {
			t.Errorf("Get of %q: %v", value, err)
		}
		if v, err := s.CompareAndSwap(ctx, "a", 1, nil, 0); v != 0 || !errors.Is(err, session.ErrCorrupt) {
			t.Errorf("CompareAndSwap of %q: %d, %v", value, v, err)
		}
		if v, err := s.PutIfAbsent(ctx, "a", nil, 0); v != 0 || err != nil {
			t.Errorf("PutIfAbsent over %q: %d, %v", value, v, err)
		}
	}
	if err := s.Put(ctx, "a", []byte("ours"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(ctx, "a"); err != nil || string(r.Value) != "ours" {
		t.Errorf("%q, %v", r.Value, err)
	}
}

// A server with a smaller limit than the store is told of refuses, and nothing
// is taken for stored.
func TestServersLimit(t *testing.T) {
	s, err := New(t.Context(), Options{Servers: []string{itest.NewMemcached(t).Addr}, MaxValue: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if v, err := s.PutIfAbsent(t.Context(), "a", make([]byte, 2<<20), time.Hour); v != 0 || err == nil {
		t.Errorf("PutIfAbsent: %d, %v", v, err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if err := s.Put(t.Context(), "a", make([]byte, defaultMaxValue), time.Hour); err != nil {
		t.Errorf("Put: %v", err)
	}
}
