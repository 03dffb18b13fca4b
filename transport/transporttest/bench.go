package transporttest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// besideTurns is how often the two of Beside change places.
const besideTurns = 10

// Beside measures b.N calls by so many callers, and as many of the bare client's, in
// turns, so that what else the machine does meets both. It reports calls/s,
// bare-calls/s and the quotient (call/bare); times and allocations are the calls'
// alone. `make bench-stores` makes a table of it.
func Beside(b *testing.B, callers int, bare, call func(context.Context) error) {
	b.Helper()
	round(b, callers, 4*callers, bare)
	round(b, callers, 4*callers, call)
	b.ReportAllocs()
	var took, bareTook time.Duration
	b.ResetTimer()
	for i := range besideTurns {
		n := b.N*(i+1)/besideTurns - b.N*i/besideTurns
		b.StopTimer()
		bareTook += round(b, callers, n, bare)
		b.StartTimer()
		took += round(b, callers, n, call)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/took.Seconds(), "calls/s")
	b.ReportMetric(float64(b.N)/bareTook.Seconds(), "bare-calls/s")
	b.ReportMetric(bareTook.Seconds()/took.Seconds(), "call/bare")
}

// round makes n calls from that many goroutines and returns how long it took.
func round(b *testing.B, callers, n int, call func(context.Context) error) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				if err := call(ctx); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	return time.Since(begin)
}
