package nats_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

const (
	benchCallers = 64
	benchSize    = 256
)

// BenchmarkExchange compares an exchange with the bare client's request and
// reply, through the same server, with the same number of callers.
func BenchmarkExchange(b *testing.B) {
	p := installed(b)
	data := bytes.Repeat([]byte("x"), benchSize)
	b.Run("Bare", func(b *testing.B) {
		connect := func() *natsgo.Conn {
			nc, err := natsgo.Connect(p.url, natsgo.UserInfo(p.account, p.password))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(nc.Close)
			return nc
		}
		subject := "test." + rand.Text()
		serving := connect()
		if _, err := serving.QueueSubscribe(subject, "q", func(m *natsgo.Msg) { _ = m.Respond(m.Data) }); err != nil {
			b.Fatal(err)
		}
		if err := serving.Flush(); err != nil {
			b.Fatal(err)
		}
		calling := connect()
		callers(b, func(ctx context.Context) error {
			_, err := calling.RequestWithContext(ctx, subject, data)
			return err
		})
	})
	b.Run("Transport", func(b *testing.B) {
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
		callers(b, func(ctx context.Context) error {
			_, err := x.Exchange(ctx, transport.Message{Form: transport.Binary, Data: data})
			return err
		})
	})
}

// BenchmarkCall is a call from node to node, open, over the same server.
func BenchmarkCall(b *testing.B) {
	p := installed(b)
	host, client := nodes(b, p, "", owtp.ConnectConfig{})
	// By its ID a node is asked for its signature; under another name it is not.
	open := owtp.ConnectConfig{ConnectType: owtp.MQ, Address: p.url, Account: p.account, Password: p.password, WriteQueueName: "owtp.node." + host.NodeID()}
	if err := client.Connect("host", open); err != nil {
		b.Fatal(err)
	}
	payload := json.RawMessage(`"` + strings.Repeat("x", benchSize-2) + `"`)
	callers(b, func(context.Context) error {
		_, err := client.CallSync("host", "echo", payload)
		return err
	})
}

func callers(b *testing.B, call func(context.Context) error) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	b.ReportAllocs()
	b.SetBytes(benchSize)
	next := make(chan struct{}, benchCallers)
	b.ResetTimer()
	var all sync.WaitGroup
	for range benchCallers {
		all.Go(func() {
			for range next {
				if err := call(ctx); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		next <- struct{}{}
	}
	close(next)
	all.Wait()
}
