package sqltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
)

// Bare are the same operations as a program does them with nothing but the
// driver, on a table of two columns.
type Bare struct {
	Get func(ctx context.Context, key string) ([]byte, error)
	Put func(ctx context.Context, key string, value []byte) error // or replace
	Add func(ctx context.Context, key string, value []byte) error // unless it is there
}

// Benchmark measures a store beside the bare driver, call by call in turns, so
// that what else the machine does meets both: the medians, and their quotient.
func Benchmark(b *testing.B, p session.Provider, bare Bare) {
	prefix := Prefix()
	var n atomic.Int64
	value := func() []byte { return fmt.Appendf(nil, "%0256d", n.Add(1)) } // a row that stays the same is not written
	for i := range 1000 {
		if err := errors.Join(p.Put(b.Context(), fmt.Sprint(prefix, i), value(), time.Hour), bare.Put(b.Context(), fmt.Sprint(prefix, i), value())); err != nil {
			b.Fatal(err)
		}
	}
	for _, test := range []struct {
		name        string
		key         func() string
		bare, store func(ctx context.Context, key string) error
	}{
		{
			"get", func() string { return fmt.Sprint(prefix, n.Add(1)%1000) },
			func(ctx context.Context, key string) error { _, err := bare.Get(ctx, key); return err },
			func(ctx context.Context, key string) error { _, err := p.Get(ctx, key); return err },
		},
		{
			"put", func() string { return fmt.Sprint(prefix, n.Add(1)%1000) },
			func(ctx context.Context, key string) error { return bare.Put(ctx, key, value()) },
			func(ctx context.Context, key string) error { return p.Put(ctx, key, value(), time.Hour) },
		},
		{
			"putIfAbsent", func() string { return fmt.Sprint(prefix, "new", n.Add(1)) },
			func(ctx context.Context, key string) error { return bare.Add(ctx, key, value()) },
			func(ctx context.Context, key string) error {
				v, err := p.PutIfAbsent(ctx, key, value(), time.Hour)
				if err == nil && v == 0 {
					err = errors.New("it is there already")
				}
				return err
			},
		},
	} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", test.name, callers), func(b *testing.B) {
				ctx, cancel := context.WithTimeout(b.Context(), time.Hour) // as a call's, which ends
				defer cancel()
				var mu sync.Mutex
				var took [2][]time.Duration
				var left atomic.Int64
				left.Store(int64(b.N))
				var all sync.WaitGroup
				for range callers {
					all.Go(func() {
						var mine [2][]time.Duration
						for left.Add(-1) >= 0 {
							for i, run := range []func(context.Context, string) error{test.bare, test.store} {
								key := test.key()
								begin := time.Now()
								if err := run(ctx, key); err != nil {
									b.Error(err)
									return
								}
								mine[i] = append(mine[i], time.Since(begin))
							}
						}
						mu.Lock()
						defer mu.Unlock()
						took[0], took[1] = append(took[0], mine[0]...), append(took[1], mine[1]...)
					})
				}
				all.Wait()
				if b.Failed() {
					return
				}
				bare, store := median(took[0]), median(took[1])
				b.ReportMetric(float64(bare)/1e3, "bare-us")
				b.ReportMetric(float64(store)/1e3, "store-us")
				b.ReportMetric(float64(store)/float64(bare), "store/bare")
			})
		}
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
