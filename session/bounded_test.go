package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
)

// faint is a shared store that can stop answering, as a server that is paused:
// operations wait until it goes on or their contexts end.
type faint struct {
	session.Provider
	asked atomic.Int64

	mu     sync.Mutex
	paused chan struct{} // closed when it goes on; nil while it runs
	broken error
}

func newFaint(t *testing.T) *faint {
	m, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &faint{Provider: m}
}

func (f *faint) Traits() session.Traits {
	t := f.Provider.Traits()
	t.Shared = true
	return t
}

func (f *faint) pause() {
	f.mu.Lock()
	f.paused = make(chan struct{})
	f.mu.Unlock()
}

func (f *faint) resume() {
	f.mu.Lock()
	close(f.paused)
	f.paused = nil
	f.mu.Unlock()
}

func (f *faint) breaks(err error) {
	f.mu.Lock()
	f.broken = err
	f.mu.Unlock()
}

func (f *faint) wait(ctx context.Context) error {
	f.asked.Add(1)
	f.mu.Lock()
	paused, broken := f.paused, f.broken
	f.mu.Unlock()
	if broken != nil {
		return broken
	}
	if paused == nil {
		return nil
	}
	select {
	case <-paused:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *faint) Get(ctx context.Context, key string) (session.Record, error) {
	if err := f.wait(ctx); err != nil {
		return session.Record{}, err
	}
	return f.Provider.Get(ctx, key)
}

func (f *faint) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if err := f.wait(ctx); err != nil {
		return 0, err
	}
	return f.Provider.PutIfAbsent(ctx, key, value, ttl)
}

func (f *faint) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	return f.Provider.List(ctx, prefix, after, limit)
}

const storeTimeout = 2 * time.Second

// took returns what an operation came to and how long it took, in fake time.
func took(p session.Provider, ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	_, err := p.Get(ctx, "k")
	return time.Since(begin), err
}

func wantTook(t *testing.T, p session.Provider, want time.Duration, is error) {
	t.Helper()
	d, err := took(p, t.Context())
	if d != want || !errors.Is(err, is) || want > 0 && errors.Is(err, session.ErrNotAsked) {
		t.Errorf("took %v and returned %v, want %v and %v", d, err, want, is)
	}
}

// breakOpen lets five operations time out, one after the other.
func breakOpen(t *testing.T, f *faint, p session.Provider) {
	t.Helper()
	f.pause()
	for range 5 {
		wantTook(t, p, storeTimeout, session.ErrUnavailable)
	}
}

func TestBoundedStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		p := session.Bounded(f, 0)
		wantTook(t, p, 0, session.ErrNotFound)
		breakOpen(t, f, p)

		// One finds out whether it is back; nobody else waits.
		asked := f.asked.Load()
		probe := make(chan error)
		go func() {
			_, err := took(p, t.Context())
			probe <- err
		}()
		synctest.Wait()
		for range 100 {
			wantTook(t, p, 0, session.ErrNotAsked)
		}
		if _, err := p.List(t.Context(), "a", "", 1); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("List: %v", err)
		}
		if _, err := p.Sweep(t.Context(), 1); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("Sweep: %v", err)
		}
		if n := f.asked.Load() - asked; n != 1 {
			t.Errorf("%d operations reached a store that does not answer", n)
		}
		if err := <-probe; !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("the probe: %v", err)
		}

		// It is back as soon as a probe is answered, also in the middle of it.
		go func() {
			_, err := took(p, t.Context())
			probe <- err
		}()
		synctest.Wait()
		wantTook(t, p, 0, session.ErrUnavailable)
		f.resume()
		if err := <-probe; !errors.Is(err, session.ErrNotFound) {
			t.Errorf("the probe: %v", err)
		}
		for range 3 {
			wantTook(t, p, 0, session.ErrNotFound)
		}
		// And it takes five timeouts again.
		breakOpen(t, f, p)
		f.resume()
		wantTook(t, p, 0, session.ErrNotFound)
	})
}

// Timeouts that are not in a row are a slow store and not one that is away.
func TestBoundedAnswersInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		p := session.Bounded(f, storeTimeout)
		for range 4 {
			f.pause()
			for range 4 {
				wantTook(t, p, storeTimeout, session.ErrUnavailable)
			}
			f.resume()
			wantTook(t, p, 0, session.ErrNotFound)
		}
	})
}

// Many that time out at one moment count once they are in a row, and those that
// began before an answer do not count after it.
func TestBoundedManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		p := session.Bounded(f, storeTimeout)
		f.pause()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() { wantTook(t, p, storeTimeout, session.ErrUnavailable) })
		}
		wg.Wait()
		go took(p, t.Context()) // the probe
		synctest.Wait()
		wantTook(t, p, 0, session.ErrUnavailable)
		f.resume()
		synctest.Wait()
		wantTook(t, p, 0, session.ErrNotFound)
	})
}

// Whoever gives up by itself, a peer that hangs up above all, cannot make the
// store count as away; nor does a client that fails at once.
func TestBoundedCallersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		p := session.Bounded(f, storeTimeout)
		f.pause()
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			d, err := took(p, ctx)
			cancel()
			if d != time.Second || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("took %v and returned %v", d, err)
			}
		}
		f.resume()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := took(p, ended); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		refused := errors.New("connection refused")
		f.breaks(refused)
		for range 20 {
			wantTook(t, p, 0, refused)
		}
		f.breaks(nil)
		wantTook(t, p, 0, session.ErrNotFound)

		// A probe whose caller gives up leaves the place to the next one.
		breakOpen(t, f, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if d, err := took(p, ctx); d != time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("took %v and returned %v", d, err)
		}
		f.resume()
		wantTook(t, p, 0, session.ErrNotFound)
	})
}

func TestBoundedNumberOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		p := session.Bounded(f, storeTimeout)
		f.pause()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4096 {
			wg.Go(func() { took(p, ctx) })
		}
		synctest.Wait()
		d, err := took(p, t.Context())
		if d != 0 || !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "4096") {
			t.Errorf("took %v and returned %v", d, err)
		}
		cancel()
		wg.Wait()
		f.resume()
		wantTook(t, p, 0, session.ErrNotFound)
	})
}

// List may take longer than an operation of one record.
func TestBoundedPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		p := session.Bounded(f, storeTimeout)
		f.pause()
		begin := time.Now()
		if _, err := p.List(t.Context(), "a", "", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if d := time.Since(begin); d != 15*storeTimeout {
			t.Errorf("List took %v", d)
		}
		f.resume()
	})
}

// What lives in this process is not wrapped: it answers at once.
func TestBoundedMemory(t *testing.T) {
	m, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if p := session.Bounded(m, 0); p != session.Provider(m) {
		t.Errorf("wrapped as %T", p)
	}
}

// A handler that keeps something for its peer hears of it in time, too.
func TestManagerOfAStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaint(t)
		m, err := session.ManagerOf(f, &session.ManagerConfig{StoreKey: keyA, StoreTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Put("peer", "name", "before"); err != nil {
			t.Fatal(err)
		}
		f.pause()
		for i := range 8 {
			begin := time.Now()
			err := m.Put("peer", "name", "meanwhile")
			if d := time.Since(begin); d != time.Second || !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("Put %d took %v and returned %v", i, d, err)
			}
		}
		if v := m.Get("peer", "name"); v != nil {
			t.Errorf("a store that does not answer has said %v", v)
		}
		f.resume()
		if v := m.GetString("peer", "name"); v != "before" {
			t.Errorf("afterwards %q", v)
		}
		if m.Provider() != session.Provider(f) {
			t.Error("Provider is not what was given")
		}
	})
}
