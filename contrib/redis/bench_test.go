package redis_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/owtp-go/owtp/internal/servers"
)

// Benchmark compares each operation with the bare client's nearest one, alone
// and with 64 at a time. The target is at most 1.3 of its time.
func Benchmark(b *testing.B) {
	s := servers.Redis(b)
	p := open(b, s.DSN)
	bare := admin(b, s)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	b.Cleanup(cancel)
	value := make([]byte, 256)
	must(b, p.Put(ctx, "bench", value, time.Hour))
	must(b, bare.Set(ctx, "bench", value, time.Hour).Err())
	swap := driver.NewScript(`if redis.call('GETRANGE', KEYS[1], 0, 8) ~= ARGV[1] then return 0 end redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1`)

	for _, op := range []struct {
		name        string
		store, bare func(key string) error
	}{
		{"Get",
			func(string) error { return second(p.Get(ctx, "bench")) },
			func(string) error { return bare.Get(ctx, "bench").Err() }},
		{"Put",
			func(key string) error { return p.Put(ctx, key, value, time.Minute) },
			func(key string) error { return bare.Set(ctx, key, value, time.Minute).Err() }},
		{"PutIfAbsent",
			func(key string) error { return second(p.PutIfAbsent(ctx, key, value, time.Minute)) },
			func(key string) error { return bare.SetNX(ctx, key, value, time.Minute).Err() }},
		{"CompareAndSwap",
			func(string) error { return second(p.CompareAndSwap(ctx, "bench", 1, value, time.Minute)) },
			func(string) error {
				return swap.Run(ctx, bare, []string{"bench"}, "123456789", value, "60000").Err()
			}},
	} {
		for _, who := range []struct {
			name string
			run  func(key string) error
		}{{"store", op.store}, {"bare", op.bare}} {
			b.Run(op.name+"/1/"+who.name, func(b *testing.B) {
				b.ReportAllocs()
				key, n := who.name+strconv.FormatInt(time.Now().UnixNano(), 36), 0
				for b.Loop() {
					n++
					if err := who.run(key + strconv.Itoa(n)); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(op.name+"/64/"+who.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					key, n := who.name+strconv.FormatInt(time.Now().UnixNano(), 36), 0
					for pb.Next() {
						n++
						if err := who.run(key + strconv.Itoa(n)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
