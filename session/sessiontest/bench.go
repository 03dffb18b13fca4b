package sessiontest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// Bare are a store's operations as a program does them with nothing but the
// driver. Put replaces what is there, Add does nothing then. One that is nil is
// measured without a comparison.
type Bare struct {
	Get func(ctx context.Context, key string) ([]byte, error)
	Put func(ctx context.Context, key string, value []byte) error
	Add func(ctx context.Context, key string, value []byte) error
}

// benchRecords is how many records Benchmark reads and replaces, and benchValue
// their size: a session with a few fields, or a call record.
const (
	benchRecords = 1000
	benchValue   = 256

	benchRound = 16 // calls of one caller in its turn
)

// Benchmark measures a store beside the bare driver, by one caller and by 64.
// They make some calls of the one kind and then as many of the other, in turns,
// so that what else the machine does meets both. It reports the time for one
// call in microseconds (store-us, bare-us) and the quotient (store/bare), the
// medians of all turns.
//
// Call it from BenchmarkStore, which `make bench-stores` runs and makes a table of.
func Benchmark(b *testing.B, p session.Provider, bare Bare) {
	prefix := "bench/" + unique() + "/"
	var n atomic.Int64
	fill(b, benchRecords, func(i int) error {
		key, value := prefix+strconv.Itoa(i), benchBytes(n.Add(1))
		if bare.Put != nil {
			if err := bare.Put(b.Context(), key, value); err != nil {
				return err
			}
		}
		return p.Put(b.Context(), key, value, time.Hour)
	})
	known := func() string { return prefix + strconv.Itoa(rand.IntN(benchRecords)) }
	for _, row := range []struct {
		name        string
		key         func() string
		store, bare call
	}{
		{"get", known, func(ctx context.Context, key string) error {
			_, err := p.Get(ctx, key)
			return err
		}, bare.get()},
		{"put", known, func(ctx context.Context, key string) error {
			return p.Put(ctx, key, benchBytes(n.Add(1)), time.Hour)
		}, writing(bare.Put, &n)},
		{"put-if-absent", func() string { return prefix + "new" + strconv.FormatInt(n.Add(1), 10) }, func(ctx context.Context, key string) error {
			v, err := p.PutIfAbsent(ctx, key, benchBytes(n.Add(1)), time.Minute)
			if err == nil && v == 0 {
				err = errors.New("it is there already")
			}
			return err
		}, writing(bare.Add, &n)},
	} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", row.name, callers), func(b *testing.B) { inTurns(b, callers, row.key, row.store, row.bare) })
		}
	}
}

type call func(ctx context.Context, key string) error

func (bare Bare) get() call {
	if bare.Get == nil {
		return nil
	}
	return func(ctx context.Context, key string) error {
		_, err := bare.Get(ctx, key)
		return err
	}
}

func writing(f func(ctx context.Context, key string, value []byte) error, n *atomic.Int64) call {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, key string) error { return f(ctx, key, benchBytes(n.Add(1))) }
}

// benchBytes differ each time: a database does not write what stays the same.
func benchBytes(n int64) []byte { return fmt.Appendf(nil, "%0*d", benchValue, n) }

// inTurns measures both, a round of the one after a round of the other, so that
// callers of the slower one never wait in the queue of the faster.
func inTurns(b *testing.B, callers int, key func() string, store, bare call) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour) // as a call's, which ends
	defer cancel()
	var stores, bares []float64 // of each round: nanoseconds for one call
	var ratios []float64
	b.ResetTimer()
	for left := b.N; left > 0 && !b.Failed(); left -= benchRound * callers {
		n := min(left, benchRound*callers)
		s := round(ctx, b, callers, n, key, store)
		stores = append(stores, s)
		if bare != nil {
			r := round(ctx, b, callers, n, key, bare)
			bares, ratios = append(bares, r), append(ratios, s/r)
		}
	}
	if b.Failed() {
		return
	}
	b.ReportMetric(median(stores)/1e3, "store-us")
	if bare != nil {
		b.ReportMetric(median(bares)/1e3, "bare-us")
		b.ReportMetric(median(ratios), "store/bare")
	}
}

// round makes n calls from that many goroutines and returns how many nanoseconds
// one took of the time of all.
func round(ctx context.Context, b *testing.B, callers, n int, key func() string, run call) float64 {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	begin := time.Now()
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := run(ctx, key()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(time.Since(begin).Nanoseconds()) / float64(n)
}

func median[T cmp.Ordered](d []T) (m T) {
	if len(d) > 0 {
		slices.Sort(d)
		m = d[len(d)/2]
	}
	return m
}

func microseconds(d []time.Duration) float64 { return float64(median(d)) / 1e3 }

// Growth measures a session's Get and Set where there are 1,000 sessions, ten
// times as many and so on, up to most (0: 1,000,000): neither may take longer
// because there are others. open returns an empty store with room for them; used,
// which may be nil, says how many bytes it takes. Call it from BenchmarkGrowth.
func Growth(b *testing.B, most int, open func(b *testing.B) (p session.Provider, used func() int64)) {
	for n := 1000; n <= cmp.Or(most, 1_000_000); n *= 10 {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p, used := open(b)
			m, err := session.ManagerOf(p, &session.ManagerConfig{SessionIDPrefix: unique(), InsecurePlaintext: true})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { m.Close() })
			id := func(i int) string { return "peer" + strconv.Itoa(i) }
			before := int64(0)
			if used != nil {
				before = used()
			}
			fill(b, n, func(i int) error { return m.Session(id(i)).Set(b.Context(), "username", "somebody") })
			each := 0.0
			if used != nil {
				each = float64(used()-before) / float64(n)
			}
			var get, set []time.Duration
			for b.Loop() {
				s := m.Session(id(rand.IntN(n)))
				begin := time.Now()
				_, err := s.Get(b.Context(), "username")
				between := time.Now()
				err = errors.Join(err, s.Set(b.Context(), "n", rand.Int64()))
				if err != nil {
					b.Fatal(err)
				}
				get, set = append(get, between.Sub(begin)), append(set, time.Since(between))
			}
			if used != nil {
				b.ReportMetric(each, "B/session")
			}
			b.ReportMetric(microseconds(get), "get-us")
			b.ReportMetric(microseconds(set), "set-us")
		})
	}
}

// fill runs f for 0 to n-1 in 256 goroutines.
func fill(b *testing.B, n int, f func(i int) error) {
	b.Helper()
	const workers = 256
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < n && !b.Failed(); i += workers {
				if err := f(i); err != nil {
					b.Errorf("record %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}
