package owtp_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/internal/testpb"
)

// Typed handlers in each format. bench/ has the same beside other libraries.

type benchOrder struct {
	Customer string            `json:"customer"`
	Items    []benchItem       `json:"items"`
	Labels   map[string]string `json:"labels,omitempty"`
}

type benchItem struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Price string `json:"price"`
	OK    bool   `json:"ok"`
}

// BenchmarkFormats has 64 callers on one sealed WebSocket, orders of 256 octets and
// of 64 KiB in JSON there and back.
func BenchmarkFormats(b *testing.B) {
	for _, items := range []int{4, 1260} {
		order := benchOrder{Customer: "Ada"}
		message := &testpb.Order{Customer: "Ada"}
		for i := range items {
			it := benchItem{int64(i), fmt.Sprintf("entry %d", i), fmt.Sprintf("%d.50", i), true}
			order.Items = append(order.Items, it)
			message.Items = append(message.Items, &testpb.Item{Id: it.ID, Name: it.Name, Price: it.Price, Ok: it.OK})
		}
		b.Run(fmt.Sprintf("items=%d/json", items), func(b *testing.B) {
			benchTyped(b, "json", order, func(o benchOrder) int { return len(o.Items) })
		})
		b.Run(fmt.Sprintf("items=%d/protobuf", items), func(b *testing.B) {
			benchTyped(b, "protobuf", order, func(o benchOrder) int { return len(o.Items) })
		})
		b.Run(fmt.Sprintf("items=%d/message", items), func(b *testing.B) {
			benchTyped(b, "protobuf", message, func(o *testpb.Order) int { return len(o.Items) })
		})
	}
}

func benchTyped[T any](b *testing.B, format string, value T, size func(T) int) {
	s := newStage(b, way{connect: owtp.Websocket, suite: "aes", format: format})
	must(b, owtp.Handle(s.host, "echo", func(_ context.Context, in T) (T, error) { return in, nil }))
	s.connect(b)
	b.ReportAllocs()
	var left atomic.Int64
	var wg sync.WaitGroup
	left.Store(int64(b.N))
	b.ResetTimer()
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				got, err := owtp.Invoke[T](context.Background(), s.client, "testhost", "echo", value)
				if err != nil || size(got) != size(value) {
					b.Errorf("%d, %v", size(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
}
