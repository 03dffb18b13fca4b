package sqltest

import (
	"errors"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// ClockBack sets the server's clock back after each method in turn has found a
// record expired: it is absent to all of them ever after.
func ClockBack(t *testing.T, open func(t testing.TB) (session.Provider, func(time.Duration))) {
	for name, find := range map[string]func(p session.Provider, key string, version uint64) (bool, error){
		"Get": func(p session.Provider, key string, _ uint64) (bool, error) {
			_, err := p.Get(t.Context(), key)
			if errors.Is(err, session.ErrNotFound) {
				return false, nil
			}
			return true, err
		},
		"CompareAndSwap": func(p session.Provider, key string, version uint64) (bool, error) {
			v, err := p.CompareAndSwap(t.Context(), key, version, nil, 0)
			return v != 0, err
		},
		"Touch": func(p session.Provider, key string, version uint64) (bool, error) {
			return p.Touch(t.Context(), key, version, 0)
		},
		"List": func(p session.Provider, key string, _ uint64) (bool, error) {
			keys, err := p.List(t.Context(), key, "", 1)
			return len(keys) > 0, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, advance := open(t)
			defer p.Close()
			version := must[uint64](t)(p.PutIfAbsent(t.Context(), "a", []byte("old"), time.Minute))
			if is, err := find(p, "a", version+1); err != nil || is != (name == "Get" || name == "List") {
				t.Fatalf("before it expires, with another version: %v, %v", is, err)
			}
			advance(time.Hour)
			if is, err := find(p, "a", version); is || err != nil {
				t.Fatalf("after it has expired: %v, %v", is, err)
			}
			advance(-time.Hour)
			if v := must[uint64](t)(p.CompareAndSwap(t.Context(), "a", version, nil, time.Hour)); v != 0 {
				t.Error("CompareAndSwap brings it back")
			}
			if must[bool](t)(p.Touch(t.Context(), "a", version, time.Hour)) {
				t.Error("Touch brings it back")
			}
			if keys := must[[]string](t)(p.List(t.Context(), "", "", 10)); len(keys) != 0 {
				t.Errorf("List shows %q", keys)
			}
			if r, err := p.Get(t.Context(), "a"); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Get: %q, %v", r.Value, err)
			}
			if v := must[uint64](t)(p.PutIfAbsent(t.Context(), "a", []byte("new"), time.Minute)); v == 0 {
				t.Error("PutIfAbsent finds it")
			}
			if r, err := p.Get(t.Context(), "a"); err != nil || string(r.Value) != "new" {
				t.Errorf("the next record: %q, %v", r.Value, err)
			}
		})
	}
}
