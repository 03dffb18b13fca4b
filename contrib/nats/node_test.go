package nats_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
)

// nodes are a host that serves "echo" over NATS and a client that has connected
// to it by its node ID.
func nodes(t testing.TB, p place, options string, mode owtp.ConnectConfig) (host, client *owtp.OWTPNode) {
	t.Helper()
	return nodesOver(t, p, options, owtp.NodeConfig{Cert: owtp.NewRandomCertificate()}, mode)
}

// nodesOver are such nodes with a host of this configuration.
func nodesOver(t testing.TB, p place, options string, cfg owtp.NodeConfig, mode owtp.ConnectConfig) (host, client *owtp.OWTPNode) {
	t.Helper()
	host, err := owtp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client = owtp.RandomOWTPNode()
	t.Cleanup(func() { client.Close(); host.Close() })
	host.HandleFunc("echo", func(ctx *owtp.Context) { ctx.Response(json.RawMessage(ctx.Data()), owtp.StatusSuccess, "success") })
	mode.ConnectType, mode.Address, mode.Account, mode.Password = owtp.MQ, p.url+options, p.account, p.password
	if err := host.Listen(mode); err != nil {
		t.Fatal(err)
	}
	if err := client.Connect(host.NodeID(), mode); err != nil {
		t.Fatal(err)
	}
	return host, client
}

// Version 1 was never spoken over NATS, and a listener that allows it here is told
// so before anything is dialled.
func TestNoVersion1(t *testing.T) {
	n := owtp.RandomOWTPNode()
	defer n.Close()
	for _, scheme := range []string{"nats", "tls"} {
		err := n.Listen(owtp.ConnectConfig{ConnectType: owtp.MQ, Address: scheme + "://127.0.0.1:1", AllowV1: true, Exchange: "x", ReadQueueName: "r", WriteQueueName: "w"})
		if err == nil || !strings.Contains(err.Error(), "AllowV1: version 1 exists over RabbitMQ") || !strings.Contains(err.Error(), "not over "+scheme+"://") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}
