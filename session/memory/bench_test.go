package memory_test

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func BenchmarkStore(b *testing.B) {
	s := open(b, memory.Options{MaxEntries: 1 << 24, MaxBytes: 16 << 30})
	sessiontest.Benchmark(b, s, sessiontest.Bare{})
}

func BenchmarkGrowth(b *testing.B) {
	sessiontest.Growth(b, 0, func(b *testing.B) (session.Provider, func() int64) {
		s := open(b, memory.Options{MaxEntries: 4 << 20, MaxBytes: 4 << 30})
		b.Cleanup(func() { s.Close() })
		return s, func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
	})
}

const benchKeys = 10_000

func benchStore(b *testing.B) (*memory.Store, []string) {
	s := open(b, memory.Options{MaxEntries: 4 << 20, MaxBytes: 4 << 30})
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = "s//" + strings.Repeat("k", 40) + strconv.Itoa(i)
		if err := s.Put(context.Background(), keys[i], make([]byte, 256), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	return s, keys
}

// inParallel runs f in 64 goroutines, whatever the number of processors. It
// reports how many there are in a second, and how many there would be on two
// processors that have nothing else to do, by the time that this process had.
func inParallel(b *testing.B, f func(i int) error) {
	const goroutines = 64
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < b.N; i += goroutines {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	if used := processorTime() - before; used > 0 {
		b.ReportMetric(2*float64(b.N)/used.Seconds(), "ops/s-on-two")
	}
}

func BenchmarkGet(b *testing.B) {
	s, keys := benchStore(b)
	inParallel(b, func(i int) error { _, err := s.Get(context.Background(), keys[i%benchKeys]); return err })
}

func BenchmarkPut(b *testing.B) {
	s, keys := benchStore(b)
	value := make([]byte, 256)
	inParallel(b, func(i int) error { return s.Put(context.Background(), keys[i%benchKeys], value, time.Hour) })
}

// New records that expire soon, as those of signed calls are.
func BenchmarkPutIfAbsent(b *testing.B) {
	s, _ := benchStore(b)
	value := make([]byte, 128)
	inParallel(b, func(i int) error {
		var key [24]byte
		_, err := s.PutIfAbsent(context.Background(), "n/"+string(strconv.AppendInt(key[:0], int64(i), 36)), value, 100*time.Millisecond)
		return err
	})
}

func BenchmarkSessionGet(b *testing.B) {
	s, _ := benchStore(b)
	m, err := session.ManagerOf(s, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for i := range 1000 {
		if err := m.Put("peer"+strconv.Itoa(i), "username", "kkk"); err != nil {
			b.Fatal(err)
		}
	}
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = "peer" + strconv.Itoa(i)
	}
	inParallel(b, func(i int) error { _, err := m.Session(ids[i%1000]).Get(context.Background(), "username"); return err })
}
