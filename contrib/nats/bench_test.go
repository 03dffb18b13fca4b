package nats_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

const (
	benchCallers = 64
	benchSize    = 256
)

// BenchmarkExchange is an exchange beside the bare client's request and reply.
// Whole calls are measured by bench/.
func BenchmarkExchange(b *testing.B) {
	p := installed(b)
	data := bytes.Repeat([]byte("x"), benchSize)
	cfg := p.config()
	l, err := nats.New().Listen(b.Context(), cfg, transporttest.Echo())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	x, err := nats.New().DialExchange(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.Close() })
	b.Run(fmt.Sprintf("%d/256B", benchCallers), func(b *testing.B) {
		transporttest.Beside(b, benchCallers, bareRequest(b, p, data), func(ctx context.Context) error {
			_, err := x.Exchange(ctx, transport.Message{Form: transport.Binary, Data: data})
			return err
		})
	})
}

// bareRequest is what a program without this package would do, with a connection
// on each side.
func bareRequest(b *testing.B, p place, data []byte) func(context.Context) error {
	subject := "test." + rand.Text()
	serving, calling := raw(b, p), raw(b, p)
	if _, err := serving.QueueSubscribe(subject, "q", func(m *natsgo.Msg) { _ = m.Respond(m.Data) }); err != nil {
		b.Fatal(err)
	}
	if err := serving.Flush(); err != nil {
		b.Fatal(err)
	}
	return func(ctx context.Context) error {
		_, err := calling.RequestWithContext(ctx, subject, data)
		return err
	}
}
