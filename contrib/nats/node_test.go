package nats_test

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/codec"
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

// Calls, calls back and one-way calls in every mode and both formats, on the old
// server and the current one, with streams and without.
func TestCalls(t *testing.T) {
	modes := map[string]owtp.ConnectConfig{
		"open": {}, "signed": {EnableSignature: true}, "sealed": {EnableKeyAgreement: true},
		"sealed and signed": {EnableKeyAgreement: true, EnableSignature: true},
	}
	everywhere(t, func(t *testing.T, p place) {
		for _, options := range []string{"", "?durable=true"} {
			for name, mode := range modes {
				for _, format := range []string{codec.NameJSON, codec.NameProtobuf} {
					mode := mode
					mode.DataFormat = format
					t.Run(options+"/"+name+"/"+format, func(t *testing.T) {
						t.Parallel()
						callsOver(t, p, options, mode)
					})
				}
			}
		}
	})
}

func callsOver(t *testing.T, p place, options string, mode owtp.ConnectConfig) {
	host, client := nodes(t, p, options, mode)
	noted := make(chan string, 1)
	about := func(ctx *owtp.Context) {
		ctx.Response(map[string]any{"format": ctx.DataFormat(), "n": ctx.Params().Get("n").Uint()}, owtp.StatusSuccess, "")
	}
	back := func(ctx *owtp.Context) {
		resp, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "about", map[string]any{"n": ctx.Params().Get("n").Uint() - 1}, nil)
		if err != nil {
			ctx.Response(nil, owtp.StatusOf(err), err.Error())
			return
		}
		ctx.Response(resp.Result, owtp.StatusSuccess, "")
	}
	for _, err := range []error{
		host.HandleFunc("about", about), client.HandleFunc("about", about), host.HandleFunc("back", back),
		host.HandleFunc("note", func(ctx *owtp.Context) { noted <- ctx.Params().Get("text").String() }),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ask := func(method string, want uint64) {
		t.Helper()
		resp, err := client.CallContext(ctx, host.NodeID(), method, map[string]any{"n": uint64(math.MaxUint64)}, nil)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		if got := resp.JsonData(); got.Get("format").String() != mode.DataFormat || got.Get("n").Uint() != want {
			t.Errorf("%s: %d %s %v", method, resp.Status, resp.Msg, got)
		}
	}
	ask("about", math.MaxUint64)
	if mode.EnableSignature || mode.EnableKeyAgreement { // who has no ID cannot be called back
		ask("back", math.MaxUint64-1)
	}
	if err := client.Notify(ctx, host.NodeID(), "note", map[string]any{"text": "é"}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-noted:
		if got != "é" {
			t.Errorf("noted %q", got)
		}
	case <-ctx.Done():
		t.Error("no note came")
	}
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
