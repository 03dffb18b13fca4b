package memcache_test

import (
	"context"
	"errors"
	"testing"

	driver "github.com/bradfitz/gomemcache/memcache"

	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func BenchmarkStore(b *testing.B) {
	s := servers.Memcached(b)
	client := driver.New(s.Addr)
	client.MaxIdleConns = 64
	b.Cleanup(func() { client.Close() })
	sessiontest.Benchmark(b, open(b, s.DSN+"?pool_size=64"), sessiontest.Bare{
		Get: func(_ context.Context, key string) ([]byte, error) {
			it, err := client.Get(key)
			if err != nil {
				return nil, err
			}
			return it.Value, nil
		},
		Put: func(_ context.Context, key string, value []byte) error {
			return client.Set(&driver.Item{Key: key, Value: value, Expiration: 3600})
		},
		Add: func(_ context.Context, key string, value []byte) error {
			err := client.Add(&driver.Item{Key: key, Value: value, Expiration: 60})
			if errors.Is(err, driver.ErrNotStored) {
				return nil
			}
			return err
		},
	})
}
