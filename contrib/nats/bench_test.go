package nats_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

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

// BenchmarkExchange is an exchange beside the bare client's request and reply.
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

// BenchmarkQueue is a call from node to node beside the bare client's request
// and reply.
func BenchmarkQueue(b *testing.B) {
	p := installed(b)
	payload := json.RawMessage(`"` + strings.Repeat("x", benchSize-2) + `"`)
	for _, form := range []struct {
		name string
		mode owtp.ConnectConfig
	}{{name: "open"}, {"signed", owtp.ConnectConfig{EnableSignature: true}}, {"sealed", owtp.ConnectConfig{EnableKeyAgreement: true}}} {
		for _, callers := range []int{1, benchCallers} {
			b.Run(fmt.Sprintf("%s/%d/256B", form.name, callers), func(b *testing.B) {
				client := benchNodes(b, p, form.mode)
				transporttest.Beside(b, callers, bareRequest(b, p, payload), func(context.Context) error {
					resp, err := client.CallSync("host", "echo", payload)
					if err == nil && !resp.OK() {
						err = fmt.Errorf("status %d %q", resp.Status, resp.Msg)
					}
					return err
				})
			})
		}
	}
}

// benchNodes returns a client of "host", both with what a node has by default.
func benchNodes(b *testing.B, p place, mode owtp.ConnectConfig) (client *owtp.OWTPNode) {
	host, client := owtp.RandomOWTPNode(), owtp.RandomOWTPNode()
	b.Cleanup(func() { client.Close(); host.Close() })
	if err := host.HandleFunc("echo", func(ctx *owtp.Context) { ctx.Response(json.RawMessage(ctx.Data()), owtp.StatusSuccess, "success") }); err != nil {
		b.Fatal(err)
	}
	mode.ConnectType, mode.Address, mode.Account, mode.Password = owtp.MQ, p.url, p.account, p.password
	if err := host.Listen(mode); err != nil {
		b.Fatal(err)
	}
	// By its ID a node is asked for its signature; under another name it is not.
	mode.WriteQueueName = "owtp.node." + host.NodeID()
	if err := client.Connect("host", mode); err != nil {
		b.Fatal(err)
	}
	return client
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
