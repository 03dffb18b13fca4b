package owtp_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	randv2 "math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/identity"
	"github.com/owtp-go/owtp/session/memory"
)

// Client and server of all these run in one process and share its processors;
// allocations are those of both.

// benchForms are the five forms of a call, by the names in the results.
var benchForms = []struct {
	name  string
	sign  bool
	suite string
}{
	{"open", false, ""},
	{"signed", true, ""},
	{"sealed", false, "aes"},
	{"sealed-sm4", false, "sm4"},
	{"sealed+signed", true, "aes"},
}

// BenchmarkCall is one call with its answer: BenchmarkCall/ws/sealed/64/256B is
// 64 callers that each call again as soon as they are answered.
func BenchmarkCall(b *testing.B) {
	for _, connect := range []string{owtp.HTTP, owtp.Websocket, owtp.Memory} {
		for _, form := range benchForms {
			for _, callers := range []int{1, 64} {
				for _, size := range []struct {
					name   string
					octets int
				}{{"256B", 256}, {"64KiB", 64 << 10}} {
					b.Run(fmt.Sprintf("%s/%s/%d/%s", connect, form.name, callers, size.name), func(b *testing.B) {
						benchCalls(b, way{connect, form.sign, form.suite}, callers, benchPayload(size.octets))
					})
				}
			}
		}
	}
}

func benchCalls(b *testing.B, w way, callers int, payload json.RawMessage) {
	s := newStage(b, w, benchStore(b))
	must(b, s.host.HandleFunc("echo", echo))
	s.connect(b)
	call := func() error {
		resp, err := s.client.CallSync("testhost", "echo", payload)
		if err != nil {
			return err
		}
		if result, ok := resp.Result.(json.RawMessage); !ok || !resp.OK() || !bytes.Equal(result, payload) {
			return fmt.Errorf("status %d %q and %d octets, want the %d of the parameters", resp.Status, resp.Msg, len(result), len(payload))
		}
		return nil
	}
	// What is done once for a peer, and once for each pooled connection, is no
	// part of a call.
	benchRun(b, callers, 4*callers, newSamples(callers), call)
	samples := newSamples(callers)
	b.ReportAllocs()
	runtime.GC()
	b.ResetTimer()
	benchRun(b, callers, b.N, samples, call)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	all := slices.Concat(samples.kept...)
	slices.Sort(all)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(all[(len(all)-1)*p/100].Nanoseconds())/1000, fmt.Sprintf("p%d-us", p))
	}
}

// benchRun makes n calls from that many goroutines, and fails with the first
// that fails.
func benchRun(b *testing.B, callers, n int, samples *samples, call func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				begin := time.Now()
				if err := call(); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				samples.add(i, time.Since(begin))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}

// samples keeps a fair choice of each caller's times, however many there are,
// in memory of a fixed size that is there before the measurement begins.
type samples struct {
	kept [][]time.Duration
	seen []int
}

const benchSamples = 1 << 16

func newSamples(callers int) *samples {
	s := &samples{kept: make([][]time.Duration, callers), seen: make([]int, callers)}
	for i := range s.kept {
		s.kept[i] = make([]time.Duration, 0, benchSamples/callers)
	}
	return s
}

// add is Vitter's algorithm R, for one caller.
func (s *samples) add(caller int, d time.Duration) {
	s.seen[caller]++
	kept := s.kept[caller]
	if len(kept) < cap(kept) {
		s.kept[caller] = append(kept, d)
	} else if i := randv2.IntN(s.seen[caller]); i < len(kept) {
		kept[i] = d
	}
}

// benchPayload is an object with a list of small objects, as calls have it: a
// single long string would flatter whatever reads JSON.
func benchPayload(octets int) json.RawMessage {
	const begin, end = `{"items":[{"id":0}`, `],"rest":"`
	t := []byte(begin)
	for i := 1; ; i++ {
		item := fmt.Sprintf(`,{"id":%d,"name":"entry %d","price":"%d.50","ok":true}`, i, i, i)
		if len(t)+len(item)+len(end)+len(`"}`) > octets {
			break
		}
		t = append(t, item...)
	}
	t = append(t, end...)
	t = append(t, strings.Repeat("x", octets-len(t)-len(`"}`))...)
	return append(t, `"}`...)
}

// benchStore gives the server room for all records of a run: over HTTP one of
// each call, with its answer, lives for two minutes, and a benchmark makes more
// calls than the default store is meant to remember.
func benchStore(b *testing.B) setup {
	store, err := memory.New(memory.Options{MaxEntries: 1 << 24, MaxBytes: 16 << 30})
	must(b, err)
	b.Cleanup(func() { must(b, store.Close()) })
	return func(host, _ *owtp.NodeConfig) { host.Store = store }
}

// BenchmarkSM2 is the machine's bound on signed calls: one signature and one
// verification, on all processors. A call that is signed both ways needs two of
// each.
func BenchmarkSM2(b *testing.B) {
	key, err := identity.GenerateKey(rand.Reader)
	must(b, err)
	message := benchPayload(256)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			sig, err := key.Sign(rand.Reader, message)
			if err != nil {
				b.Error(err)
				return
			}
			if !key.Public().Verify(sig, message) {
				b.Error("the signature does not verify")
				return
			}
		}
	})
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "pairs/s")
	b.ReportMetric(rate/2, "calls/s-bound")
}
