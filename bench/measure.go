package main

import (
	"context"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// figures are what one round of one row has measured. Client, server and what
// measures them are one process; a broker's share is not in it.
type figures struct {
	Rate       float64 `json:"callsPerSecond"`
	P50        float64 `json:"p50us"`
	P99        float64 `json:"p99us"`
	P999       float64 `json:"p999us"`
	CPU        float64 `json:"cpuUsPerCall"`
	Bytes      float64 `json:"bytesPerCall"`
	Allocs     float64 `json:"allocsPerCall"`
	Goroutines float64 `json:"goroutines"`
}

// closed measures callers that call again as soon as they are answered.
func closed(ctx context.Context, l *line, callers int, warm, length time.Duration) (figures, error) {
	crew := newCrew(callers)
	if err := crew.run(ctx, l, warm); err != nil {
		return figures{}, err
	}
	crew.forget()
	runtime.GC()
	goroutines := make(chan int, 1)
	halfway := time.AfterFunc(length/2, func() { goroutines <- runtime.NumGoroutine() - callers })
	defer halfway.Stop()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, begin := processorTime(), time.Now()
	if err := crew.run(ctx, l, length); err != nil {
		return figures{}, err
	}
	took, used := time.Since(begin), processorTime()-cpu
	runtime.ReadMemStats(&after)
	all := crew.times()
	n := float64(all.count)
	return figures{
		Rate: n / took.Seconds(), P50: all.quantile(.5), P99: all.quantile(.99), P999: all.quantile(.999),
		CPU:   float64(used.Nanoseconds()) / 1e3 / n,
		Bytes: float64(after.TotalAlloc-before.TotalAlloc) / n, Allocs: float64(after.Mallocs-before.Mallocs) / n,
		Goroutines: float64(<-goroutines),
	}, nil
}

// A crew is callers and what they have seen.
type crew struct{ seen []times }

func newCrew(callers int) *crew { return &crew{make([]times, callers)} }

func (c *crew) forget() { clear(c.seen) }

// run lets all call for so long, each at least once.
func (c *crew) run(ctx context.Context, l *line, length time.Duration) error {
	var stop atomic.Bool
	end := time.AfterFunc(length, func() { stop.Store(true) })
	defer end.Stop()
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for i := range c.seen {
		all.Go(func() {
			for once := true; once || !stop.Load(); once = false {
				begin := time.Now()
				if err := l.call(ctx, i); err != nil {
					failed.CompareAndSwap(nil, &err)
					stop.Store(true)
					return
				}
				c.seen[i].add(time.Since(begin))
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *crew) times() *times {
	all := new(times)
	for i := range c.seen {
		all.join(&c.seen[i])
	}
	return all
}

// offeredCallers bounds the calls that are under way at one time when they are
// offered at a fixed rate.
const offeredCallers = 256

// offered measures calls that are due at a fixed rate, whatever became of those
// before. A time counts from when the call was due, so that a server that stalls
// cannot hide the calls that it has kept from being made.
func offered(ctx context.Context, l *line, rate float64, length time.Duration) (*times, error) {
	crew := newCrew(offeredCallers)
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	begin := time.Now().Add(10 * time.Millisecond)
	calls := int(rate * length.Seconds())
	for i := range crew.seen {
		all.Go(func() {
			for n := i; n < calls && failed.Load() == nil; n += offeredCallers {
				due := begin.Add(time.Duration(float64(n) / rate * 1e9))
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
				}
				if err := l.call(ctx, i); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				crew.seen[i].add(time.Since(due))
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return crew.times(), nil
}

// times is a histogram of durations in steps of less than one hundredth, so that
// adding one costs nothing and a thousand callers have one each.
type times struct {
	count uint64
	steps [stepsOf * 40]uint32
}

const (
	stepBits = 7
	stepsOf  = 1 << stepBits // to each power of two
)

func (t *times) add(d time.Duration) {
	t.steps[stepOf(uint64(max(d, 0)))]++
	t.count++
}

// stepOf: durations below stepsOf nanoseconds have a step each.
func stepOf(ns uint64) int {
	shift := max(bits.Len64(ns)-stepBits-1, 0)
	return min(shift<<stepBits+int(ns>>shift), len(times{}.steps)-1)
}

// stepBegin is the smallest duration of a step.
func stepBegin(step int) float64 {
	if step < 2*stepsOf {
		return float64(step)
	}
	shift := step>>stepBits - 1
	return float64(uint64(step-shift<<stepBits) << shift)
}

func (t *times) join(o *times) {
	t.count += o.count
	for i, n := range o.steps {
		t.steps[i] += n
	}
}

// quantile returns the middle of the step in which it lies, in microseconds.
func (t *times) quantile(q float64) float64 {
	rank := uint64(q * float64(t.count-1))
	for i, n := range t.steps {
		if uint64(n) > rank {
			return (stepBegin(i) + stepBegin(i+1)) / 2 / 1e3
		}
		rank -= uint64(n)
	}
	return 0
}
