package sqltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
)

const (
	outageWorkers = 8
	callTime      = time.Second      // of one call's context
	callSlack     = 15 * time.Second // a crowded machine's
	recovery      = time.Minute
)

// load writes to a store all the time and keeps account of what was confirmed.
type load struct {
	session.Provider
	prefix string
	done   atomic.Int64 // calls that succeeded
	failed atomic.Int64

	mu      sync.Mutex
	stored  map[string]uint64 // confirmed PutIfAbsent, with their versions
	denied  []string          // said to be there, though nobody else writes it
	longest time.Duration
	wrong   []error
}

// Outage pauses, kills and restarts the server in the middle of a load. Every
// call ends in time; none that was confirmed is lost, none is denied that was
// done, and the same store goes on when the server does.
func Outage(t *testing.T, s *servers.Server, p session.Provider) {
	t.Helper()
	l := &load{Provider: p, prefix: Prefix(), stored: make(map[string]uint64)}
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for w := range outageWorkers {
		workers.Go(func() { l.work(ctx, w) })
	}
	stop := sync.OnceFunc(func() { cancel(); workers.Wait() })
	defer stop()
	l.wait(t, &l.done, 200, "calls succeed")
	for range 2 {
		s.Pause(t)
		l.wait(t, &l.failed, outageWorkers, "calls end while the server is paused")
		s.Resume(t)
		l.wait(t, &l.done, 100, "calls succeed after the pause")
		s.Kill(t)
		l.wait(t, &l.failed, outageWorkers, "calls end while the server is away")
		s.Start(t)
		l.wait(t, &l.done, 100, "calls succeed after the restart")
	}
	s.Stop(t)
	l.wait(t, &l.failed, outageWorkers, "calls end after the server has ended")
	s.Start(t)
	l.wait(t, &l.done, 100, "calls succeed at the end")
	stop()
	l.check(t)
}

// wait waits until a counter has grown by n.
func (l *load) wait(t *testing.T, counter *atomic.Int64, n int64, what string) {
	t.Helper()
	target := counter.Load() + n
	for end := time.Now().Add(recovery); counter.Load() < target; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come in %v: %s (%d of %d)", recovery, what, counter.Load(), target)
		}
	}
}

// work stores new keys, and counts in one of its own by swaps.
func (l *load) work(ctx context.Context, w int) {
	counter := fmt.Sprintf("%scount/%d", l.prefix, w)
	var confirmed, unknown int
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprintf("%sone/%d/%d", l.prefix, w, n)
		var version uint64
		err := l.call(ctx, func(ctx context.Context) (err error) {
			version, err = l.PutIfAbsent(ctx, key, []byte(key), time.Hour)
			return err
		})
		l.mu.Lock()
		switch {
		case err == nil && version != 0:
			l.stored[key] = version
		case err == nil:
			l.denied = append(l.denied, key)
		}
		l.mu.Unlock()

		var r session.Record
		err = l.call(ctx, func(ctx context.Context) (err error) {
			r, err = l.Get(ctx, counter)
			if errors.Is(err, session.ErrNotFound) {
				r, err = session.Record{}, nil
			}
			return err
		})
		if err != nil {
			continue
		}
		if len(r.Value) < confirmed || len(r.Value) > confirmed+unknown {
			l.complain(fmt.Errorf("the counter %s is %d: %d were confirmed and %d unknown", counter, len(r.Value), confirmed, unknown))
			return
		}
		err = l.call(ctx, func(ctx context.Context) (err error) {
			value := append(r.Value, 1)
			if r.Version == 0 {
				version, err = l.PutIfAbsent(ctx, counter, value, time.Hour)
			} else {
				version, err = l.CompareAndSwap(ctx, counter, r.Version, value, time.Hour)
			}
			return err
		})
		switch {
		case err != nil:
			unknown++
		case version != 0:
			confirmed++
		case unknown == 0:
			l.complain(fmt.Errorf("a swap of %s found another version, and nobody else writes it", counter))
			return
		}
	}
}

func (l *load) complain(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, err)
}

// call runs f with a deadline. What has failed is not repeated at once: nobody
// hammers a server that is away.
func (l *load) call(ctx context.Context, f func(ctx context.Context) error) error {
	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	begin := time.Now()
	err := f(cctx)
	l.mu.Lock()
	l.longest = max(l.longest, time.Since(begin))
	l.mu.Unlock()
	if err == nil {
		l.done.Add(1)
		return nil
	}
	if ctx.Err() == nil {
		l.failed.Add(1)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (l *load) check(t *testing.T) {
	t.Helper()
	for _, err := range l.wrong {
		t.Error(err)
	}
	for _, key := range l.denied {
		t.Errorf("PutIfAbsent(%q) says that there is one already, and nobody else writes it", key)
	}
	if l.longest > callTime+callSlack {
		t.Errorf("a call took %v, its context lives %v", l.longest, callTime)
	}
	for key, version := range l.stored {
		r, err := l.Get(t.Context(), key)
		if err != nil || r.Version != version || string(r.Value) != key {
			t.Errorf("%q was confirmed with version %d; now: %q, version %d, %v", key, version, r.Value, r.Version, err)
		}
	}
	t.Logf("%d calls succeeded, %d failed, %d records confirmed and there, the longest call took %v", l.done.Load(), l.failed.Load(), len(l.stored), l.longest)
}
