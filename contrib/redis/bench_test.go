package redis_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/servers"
	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
	"github.com/owtp-go/owtp/session/memory"
	"github.com/owtp-go/owtp/session/sessiontest"
)

func BenchmarkStore(b *testing.B) {
	s := servers.Redis(b)
	bare := admin(b, s)
	sessiontest.Benchmark(b, open(b, s.DSN), sessiontest.Bare{
		Get: func(ctx context.Context, key string) ([]byte, error) { return bare.Get(ctx, key).Bytes() },
		Put: func(ctx context.Context, key string, value []byte) error {
			return bare.Set(ctx, key, value, time.Hour).Err()
		},
		Add: func(ctx context.Context, key string, value []byte) error {
			return bare.SetNX(ctx, key, value, time.Minute).Err()
		},
	})
}

func BenchmarkGrowth(b *testing.B) {
	sessiontest.Growth(b, 0, func(b *testing.B) (session.Provider, func() int64) {
		s := servers.NewRedis(b)
		bare := admin(b, s)
		return open(b, s.DSN), func() int64 {
			text, err := bare.Info(b.Context(), "memory").Result()
			must(b, err)
			_, rest, _ := strings.Cut(text, "used_memory:")
			line, _, _ := strings.Cut(rest, "\r\n")
			n, err := strconv.ParseInt(line, 10, 64)
			must(b, err)
			return n
		}
	})
}

// BenchmarkCall is a call over HTTP that is signed both ways, by 64 callers, and
// whose record the server keeps in memory, in a file, or in Redis.
func BenchmarkCall(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) session.Provider{
		"memory": func(b *testing.B) session.Provider {
			s, err := memory.New(memory.Options{MaxEntries: 1 << 24, MaxBytes: 16 << 30})
			must(b, err)
			b.Cleanup(func() { s.Close() })
			return s
		},
		"file": func(b *testing.B) session.Provider {
			s, err := file.New(file.Options{Path: filepath.Join(b.TempDir(), "store"), MaxEntries: 1 << 24})
			must(b, err)
			b.Cleanup(func() { s.Close() })
			return s
		},
		"redis": func(b *testing.B) session.Provider { return open(b, servers.NewRedis(b).DSN) },
	} {
		b.Run("http/signed/64/record in "+name, func(b *testing.B) { signedCalls(b, open(b)) })
	}
}

func signedCalls(b *testing.B, store session.Provider) {
	node := func(store session.Provider) *owtp.OWTPNode {
		n, err := owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate(), Store: store})
		must(b, err)
		b.Cleanup(func() { n.Close() })
		return n
	}
	host, client := node(store), node(nil)
	must(b, host.HandleFunc("echo", func(c *owtp.Context) { c.Response("done", owtp.StatusSuccess, "") }))
	must(b, host.Listen(owtp.ConnectConfig{Address: "127.0.0.1:0", ConnectType: owtp.HTTP, EnableSignature: true}))
	must(b, client.Connect("host", owtp.ConnectConfig{Address: host.ListenerAddr(owtp.HTTP), ConnectType: owtp.HTTP, EnableSignature: true}))
	const callers = 64
	took := make([][]time.Duration, callers)
	var left atomic.Int64
	run := func(n int) {
		left.Store(int64(n))
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				for left.Add(-1) >= 0 {
					begin := time.Now()
					if resp, err := client.CallSync("host", "echo", nil); err != nil || !resp.OK() {
						b.Errorf("%+v, %v", resp, err)
						return
					}
					took[i] = append(took[i], time.Since(begin))
				}
			})
		}
		all.Wait()
	}
	run(2 * callers) // what is done once for a peer and a connection is no part of a call
	clear(took)
	b.ReportAllocs()
	b.ResetTimer()
	run(b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	all := slices.Concat(took...)
	slices.Sort(all)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(all[(len(all)-1)*p/100].Nanoseconds())/1000, fmt.Sprintf("p%d-us", p))
	}
}
