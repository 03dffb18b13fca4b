package nats_test

import (
	"crypto/rand"
	"testing"

	"github.com/owtp-go/owtp/contrib/nats"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

func TestConformance(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) { conformance(t, p, transporttest.Options{}) })
	t.Run("Durable", func(t *testing.T) {
		everywhere(t, func(t *testing.T, p place) {
			p.url += "?durable=true"
			conformance(t, p, transporttest.Options{})
		})
	})
	t.Run("TLS", func(t *testing.T) {
		server, client := transporttest.TLSConfigs(t)
		conformance(t, embed(t, server), transporttest.Options{ServerTLS: client, ClientTLS: client})
	})
}

// conformance runs the suite. Each listener has a queue of its own.
func conformance(t *testing.T, p place, o transporttest.Options) {
	var queue string
	o.Broker = true
	o.Tune = func(cfg *transport.Config) { p.tune(cfg, queue) }
	transporttest.TestTransport(t, func() transport.Transport { return nats.New() }, func(testing.TB) string {
		queue = "test." + rand.Text()
		return p.url
	}, o)
}
