package wst_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/owtp-go/owtp/internal/wst"
	"github.com/owtp-go/owtp/transport"
	"github.com/owtp-go/owtp/transport/transporttest"
)

// TestLegacyUpgrade tells the two versions apart by what the upgrade offers.
func TestLegacyUpgrade(t *testing.T) {
	conns := make(chan transport.LegacyConn, 1)
	addr := listen(t, transporttest.HandlerFuncs{Conn: func(ctx context.Context, c transport.Conn) {
		conns <- c.(transport.LegacyConn)
		for m, err := c.Recv(ctx); err == nil; m, err = c.Recv(ctx) {
			m.Form = transport.Legacy
			_ = c.Send(ctx, m)
		}
	}}, nil)
	c, err := wst.New().DialConn(t.Context(), transporttest.Config(addr))
	if err != nil {
		t.Fatal(err)
	}
	if key, legacy := (<-conns).Announced(); key != "" || legacy {
		t.Errorf("this version: %q, %v", key, legacy)
	}
	if err := c.Send(t.Context(), transport.Message{Form: transport.Legacy, Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Recv(t.Context()); err != nil || m.Form != transport.JSON || string(m.Data) != "{}" {
		t.Errorf("version 1 travels as %v %q, %v", m.Form, m.Data, err)
	}
	_ = c.Close("")
	for header, want := range map[string]string{"": "", "a: key\r\n": "key", "A: k\r\na: l\r\n": "k,l"} {
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(raw, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+header+"\r\n")
		if key, legacy := (<-conns).Announced(); key != want || !legacy {
			t.Errorf("%q: %q, %v", header, key, legacy)
		}
		_ = raw.Close()
	}
}
