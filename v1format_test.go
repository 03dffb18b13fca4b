package owtp

import (
	"context"
	"strings"
	"testing"

	"github.com/owtp-go/owtp/internal/legacy"
)

// Version 1 has JSON and nothing else. What asks for another format is told so,
// and a listener whose calls back have another one calls version 1 peers in JSON.
func TestV1KnowsJSONOnly(t *testing.T) {
	t.Parallel()
	p := newV1Peer(t, func(*legacy.Packet) string { t.Error("something was sent"); return "" })
	n := newV1Caller(t, v1Now)
	if err := n.Connect("p", ConnectConfig{Address: p.addr, ConnectType: HTTP, Version: 1, DataFormat: "protobuf"}); err == nil || !strings.Contains(err.Error(), "json") {
		t.Errorf("Connect: %v", err)
	}
	if err := n.Connect("p", ConnectConfig{Address: p.addr, ConnectType: HTTP, Version: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := n.CallContext(context.Background(), "p", "echo", 1, &CallOptions{Format: "protobuf"})
	if StatusOf(err) != ErrUnsupportedType || !strings.Contains(err.Error(), "JSON") {
		t.Errorf("call: %v", err)
	}

	h := newV1Host(t, ConnectConfig{ConnectType: Websocket, DataFormat: "protobuf"})
	if err := h.node.HandleFunc("protobuf", func(ctx *Context) {
		_, err := ctx.Node().CallContext(ctx.Context(), ctx.PID, "ping", 1, &CallOptions{Format: "protobuf"})
		ctx.Response(nil, StatusOf(err), err.Error())
	}); err != nil {
		t.Fatal(err)
	}
	c := newV1Stranger(t)
	conn := h.dial(c.announce())
	if r := c.serves(conn, c.request("callback", `{"x":1}`), func(q *legacy.Packet) string {
		if text, err := q.Text(); err != nil || text != `{"x":1}` {
			t.Errorf("called back with %q: %v", text, err)
		}
		return `{"status":200,"msg":"success","result":{"pong":1}}`
	}); r.Status != 200 || !strings.Contains(string(r.Result), `"pong":1`) {
		t.Errorf("called back: %+v", r)
	}
	conn.send(v1Text(t, c.request("protobuf", `1`)))
	if r := c.opened(conn.next()); r.Status != ErrUnsupportedType || !strings.Contains(r.Msg, "JSON") {
		t.Errorf("called back in another format: %+v", r)
	}
}
