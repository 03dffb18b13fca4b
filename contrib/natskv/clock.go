package natskv

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// clockAge is how long the server's time is counted on here before it is asked
// again.
const clockAge = time.Minute

// A clock knows the server's time. It is only for saying how much is left of a time
// to live: what has expired, the server decides. It is safe for concurrent use.
type clock struct {
	last   atomic.Pointer[reading]
	asking sync.Mutex
}

type reading struct {
	server time.Time
	here   time.Time // with the monotonic clock, which setting the time does not move
}

func (c *clock) set(server time.Time) { c.last.Store(&reading{server, time.Now()}) }

// now returns the server's time. If it cannot be asked the last answer is good
// enough.
func (s *Store) now(ctx context.Context) time.Time {
	r := s.clock.last.Load()
	if time.Since(r.here) > clockAge && s.clock.asking.TryLock() {
		defer s.clock.asking.Unlock()
		if info, err := s.stream.Info(ctx); err == nil {
			s.clock.set(info.TimeStamp)
			r = s.clock.last.Load()
		}
	}
	return r.server.Add(time.Since(r.here))
}
