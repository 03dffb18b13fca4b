package redis_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/contrib/redis"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

// TestForeignValues: something else lies under our key.
func TestForeignValues(t *testing.T) {
	s := servers.Redis(t)
	a := admin(t, s)
	p, ctx := open(t, s.DSN), t.Context()
	version := binary.BigEndian.AppendUint64(nil, 7)
	for name, plant := range map[string]func(key string) error{
		"nothing":        func(k string) error { return a.Set(ctx, k, "", 0).Err() },
		"short":          func(k string) error { return a.Set(ctx, k, "\x01abc", time.Hour).Err() },
		"text":           func(k string) error { return a.Set(ctx, k, "some other program's value", 0).Err() },
		"another format": func(k string) error { return a.Set(ctx, k, "\x02"+string(version)+"value", 0).Err() },
		"no version":     func(k string) error { return a.Set(ctx, k, "\x01"+strings.Repeat("\x00", 8)+"value", 0).Err() },
		"a byte too long": func(k string) error {
			return a.Set(ctx, k, "\x01"+string(version)+strings.Repeat("x", session.MaxValueLen+1), 0).Err()
		},
		"a number":          func(k string) error { return a.Incr(ctx, k).Err() },
		"a hash":            func(k string) error { return a.HSet(ctx, k, "a", "b").Err() },
		"a list":            func(k string) error { return a.RPush(ctx, k, "a").Err() },
		"a far too long":    func(k string) error { return a.SetRange(ctx, k, 64<<20, "x").Err() },
		"a set with a time": func(k string) error { return errors.Join(a.SAdd(ctx, k, "a").Err(), a.Expire(ctx, k, time.Hour).Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			key := "foreign/" + name
			must(t, plant("owtp:"+key))
			if r, err := p.Get(ctx, key); !errors.Is(err, session.ErrCorrupt) || r.Value != nil {
				t.Errorf("Get: %d bytes, %v; want ErrCorrupt", len(r.Value), err)
			}
			if v, err := p.PutIfAbsent(ctx, key, nil, 0); v != 0 || err != nil {
				t.Errorf("PutIfAbsent: %d, %v", v, err)
			}
			for _, version := range []uint64{0, 1, 7} {
				if v, err := p.CompareAndSwap(ctx, key, version, []byte("x"), 0); v != 0 || err != nil && !errors.Is(err, session.ErrCorrupt) {
					if version != 7 || name != "a byte too long" { // which has that version
						t.Errorf("CompareAndSwap of version %d: %d, %v", version, v, err)
					}
				}
			}
			must(t, p.Put(ctx, key, []byte("ours"), time.Hour))
			if r, err := p.Get(ctx, key); err != nil || string(r.Value) != "ours" {
				t.Errorf("after Put: %q, %v", r.Value, err)
			}
			must(t, p.Delete(ctx, key))
		})
	}
}

// TestPrefixes: stores and other programs in one database do not see each other,
// whatever is in the prefix.
func TestPrefixes(t *testing.T) {
	s := servers.Redis(t)
	a, ctx := admin(t, s), t.Context()
	prefixes := []string{"a:", "b:", "*", "?", "[ab]:", `\`, "a\x00:", "^-]:", "\xff"}
	for i, prefix := range prefixes {
		p, err := redis.New(ctx, a, redis.Options{Prefix: "prefixes/" + prefix})
		must(t, err)
		for _, key := range []string{"1", "2", "x*", "x[1]", "x"} {
			must(t, p.Put(ctx, key, []byte{byte(i)}, time.Minute))
		}
	}
	for i, prefix := range prefixes {
		p, err := redis.New(ctx, a, redis.Options{Prefix: "prefixes/" + prefix})
		must(t, err)
		keys, err := p.List(ctx, "", "", 100)
		if fmt.Sprint(keys) != "[1 2 x x* x[1]]" || err != nil {
			t.Errorf("prefix %q lists %q, %v", prefix, keys, err)
		}
		keys, err = p.List(ctx, "x*", "", 100)
		if fmt.Sprint(keys) != "[x*]" || err != nil {
			t.Errorf("prefix %q lists %q under x*, %v", prefix, keys, err)
		}
		if r, err := p.Get(ctx, "1"); err != nil || r.Value[0] != byte(i) {
			t.Errorf("prefix %q has %v, %v", prefix, r.Value, err)
		}
	}
}
