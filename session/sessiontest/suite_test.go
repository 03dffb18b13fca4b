package sessiontest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/session/sessiontest"
)

// TestConformance runs the suite on a store that three processes share.
func TestConformance(t *testing.T) {
	runRemote(t, func(p session.Provider) session.Provider { return p })
}

func runRemote(t *testing.T, wrap func(session.Provider) session.Provider) {
	config := func(t *testing.T) string { return serve(t, wrap) }
	sessiontest.Run(t, func(t *testing.T) session.Provider {
		p, err := dial(t.Context(), config(t))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, sessiontest.Options{Config: config, Connect: dial, Sessions: 1000})
}

// broken names a fault; the test binary started with it runs the suite on a
// store that has it.
const broken = "OWTP_BROKEN_STORE"

// faults are stores that the suite must not pass, with a test that notices.
var faults = map[string]struct {
	notices string
	wrap    func(session.Provider) session.Provider
}{
	"put-if-absent looks first":      {"PutIfAbsentOneWins", func(p session.Provider) session.Provider { return looksFirst{p} }},
	"compare-and-swap looks first":   {"CompareAndSwapLosesNothing", func(p session.Provider) session.Provider { return looksFirst{p} }},
	"expired until collected":        {"ExpiredIsAbsent", func(p session.Provider) session.Provider { return &neverExpires{p} }},
	"the versions are the values'":   {"Versions", func(p session.Provider) session.Provider { return sameVersion{p} }},
	"the list's prefix is a pattern": {"List", func(p session.Provider) session.Provider { return listsAll{p} }},
	"two processes may both win":     {"Elsewhere", func(p session.Provider) session.Provider { return looksFirst{p} }},
	"durable, but no way to test it": {"Elsewhere", nil},
}

// looksFirst has every write in two steps, with time in between.
type looksFirst struct{ session.Provider }

func (p looksFirst) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if _, err := p.Get(ctx, key); err == nil {
		return 0, nil
	}
	time.Sleep(time.Millisecond)
	if err := p.Put(ctx, key, value, ttl); err != nil {
		return 0, err
	}
	r, err := p.Get(ctx, key)
	return r.Version, err
}

func (p looksFirst) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	if r, err := p.Get(ctx, key); err != nil || r.Version != version {
		return 0, nil
	}
	time.Sleep(time.Millisecond)
	if err := p.Put(ctx, key, value, ttl); err != nil {
		return 0, err
	}
	r, err := p.Get(ctx, key)
	return r.Version, err
}

// neverExpires hides nothing before somebody has collected it, and nobody does.
type neverExpires struct{ session.Provider }

func (p *neverExpires) Put(ctx context.Context, key string, value []byte, _ time.Duration) error {
	return p.Provider.Put(ctx, key, value, time.Hour)
}

// sameVersion takes its versions from the values.
type sameVersion struct{ session.Provider }

func (p sameVersion) Get(ctx context.Context, key string) (session.Record, error) {
	r, err := p.Provider.Get(ctx, key)
	r.Version = uint64(len(r.Value)) + 1
	return r, err
}

// listsAll takes a prefix for what it should contain.
type listsAll struct{ session.Provider }

func (p listsAll) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return p.Provider.List(ctx, strings.TrimRight(prefix, "%_*?[/"), after, limit)
}

// unproved says that it is durable.
type unproved struct{ session.Provider }

func (p unproved) Traits() session.Traits {
	t := p.Provider.Traits()
	t.Durable = true
	return t
}

// TestFaultsAreNoticed runs the suite on broken stores, in processes whose
// failure is what is wanted.
func TestFaultsAreNoticed(t *testing.T) {
	if name := os.Getenv(broken); name != "" {
		f := faults[name]
		if f.wrap == nil {
			sessiontest.Run(t, func(t *testing.T) session.Provider {
				p, err := memory.New(memory.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return unproved{p}
			}, sessiontest.Options{Sessions: 10})
			return
		}
		runRemote(t, f.wrap)
		return
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFaultsAreNoticed$/^"+f.notices+"$", "-test.v")
			cmd.Env = append(os.Environ(), broken+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestFaultsAreNoticed/"+f.notices) {
				t.Errorf("%s does not notice it: %v\n%s", f.notices, err, out)
			}
		})
	}
}
